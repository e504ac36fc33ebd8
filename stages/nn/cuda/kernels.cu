// All kernels, as one unit: nvcc makes it a fat binary, the tests' build the simulation.
#include "platform.h"
#include "arithmetic.h"
#include "norm.cu"
#include "columns.cu"
#include "tables.cu"
#include "optimizer.cu"
#include "attention.cu"
#include "other_networks.cu"
