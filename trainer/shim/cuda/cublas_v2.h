// The names that c10d's headers ask of NVIDIA's cuBLAS, of which the shim calls nothing.
#pragma once

typedef struct cublasContext* cublasHandle_t;
typedef enum { CUBLAS_STATUS_SUCCESS = 0 } cublasStatus_t;
