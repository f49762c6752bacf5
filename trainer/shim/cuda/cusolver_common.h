// The names that c10d's headers ask of NVIDIA's cuSOLVER, of which the shim calls nothing.
#pragma once

typedef enum { CUSOLVER_STATUS_SUCCESS = 0 } cusolverStatus_t;
