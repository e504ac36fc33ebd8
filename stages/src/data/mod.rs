//! Reading data from files, addresses and the hub; writing Arrow.
