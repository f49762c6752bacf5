// The names that c10d's headers ask of NVIDIA's cuSOLVER, of which the shim calls nothing.
#pragma once

typedef struct cusolverDnContext* cusolverDnHandle_t;
