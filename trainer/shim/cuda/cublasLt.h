// The names that c10d's headers ask of NVIDIA's cuBLASLt, of which the shim calls nothing.
#pragma once

typedef struct cublasLtContext* cublasLtHandle_t;
