// The names that c10d's headers ask of NVIDIA's cuSPARSE, of which the shim calls nothing.
#pragma once

typedef struct cusparseContext* cusparseHandle_t;
typedef enum { CUSPARSE_STATUS_SUCCESS = 0 } cusparseStatus_t;

inline const char* cusparseGetErrorString(cusparseStatus_t) {
  return "";
}
