//! With the feature `cuda`, makes a fat binary of the kernels in `cuda/` by nvcc; with `simulation`, compiles them for the
//! CPU. Without either there is nothing to do.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cuda");
    #[cfg(feature = "cuda")]
    cuda();
    #[cfg(feature = "simulation")]
    simulation();
}

/// Machine code for compute capability 9.0, and for other devices from 8.0 on a form that the driver compiles.
#[cfg(feature = "cuda")]
fn cuda() {
    println!("cargo::rerun-if-env-changed=NVCC");
    let nvcc = std::env::var("NVCC").unwrap_or_else(|_| "nvcc".to_owned());
    let folder = std::env::var("OUT_DIR").expect("cargo says where files go");
    let status = std::process::Command::new(&nvcc)
        .args(["-std=c++17", "-fatbin", "--fmad=false", "--threads=0"])
        .arg("-gencode=arch=compute_90,code=sm_90")
        .arg("-gencode=arch=compute_80,code=compute_80")
        .args(["-o", &format!("{folder}/kernels.fatbin"), "cuda/kernels.cu"])
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{nvcc} ended with {status}"),
        Err(error) => panic!(
            "{nvcc} cannot be started: {error}\nhelp: `scripts/cuda/build.sh` puts nvcc together and builds; \
             or say with NVCC where it is"
        ),
    }
}

#[cfg(feature = "simulation")]
fn simulation() {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .file("cuda/simulation.cc")
        .opt_level(2)
        .flag("-ffp-contract=off")
        // Memory holds numbers of any sort, as on a device.
        .flag("-fno-strict-aliasing");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        build.flag("-mfma").flag("-mavx2");
    }
    build.compile("taper_simulation");
}
