//! NVIDIA GPUs: one stream, on which everything happens in order; kernels of this crate, products by cuBLAS. Driver
//! and cuBLAS are looked for when a device is opened: the program starts without them.
#![expect(
    unsafe_code,
    reason = "the driver and cuBLAS are C libraries, and a device's addresses are plain numbers"
)]

use std::collections::BTreeMap;
use std::ffi::{CString, c_int, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cudarc::cublas::{result as cublas, sys as cublas_sys};
use cudarc::driver::{result as driver, sys};

use super::{Address, Argument, Description, Device, Element, Fault, Grid, Product, Spent};

/// A fat binary has to lie where a machine word could.
#[repr(C, align(16))]
struct Aligned<T: ?Sized>(T);

static KERNELS: &Aligned<[u8]> =
    &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin")));

/// The driver that knows what the kernels are compiled to.
const DRIVER: (u32, u32) = (13, 0);
/// The cuBLAS that is known here.
const CUBLAS: c_int = 13;
/// What makes cuBLAS round otherwise than it is told: with one of these set, a key would not say what is computed.
const OVERRIDES: [&str; 3] = [
    "NVIDIA_TF32_OVERRIDE",
    "CUBLAS_EMULATE_SINGLE_PRECISION",
    "CUBLAS_EMULATION_STRATEGY",
];
/// The least that a device must be able to compute.
const CAPABILITY: (u32, u32) = (8, 0);
/// What cuBLAS may use besides; given by hand, so that its choices follow the shapes alone.
const WORKSPACE: usize = 32 << 20;
/// Bytes that are on their way to the device at a time, and how often.
const STAGE: usize = 4 << 20;
const STAGES: usize = 8;
/// Shared memory that a block has without asking.
const SHARED: usize = 48 << 10;

fn failed(doing: &str, error: driver::DriverError) -> Fault {
    Fault::Failed(format!("the GPU failed {doing}: {error}"))
}

fn failed_product(error: cublas::CublasError) -> Fault {
    Fault::Failed(format!("cuBLAS failed: {error}"))
}

/// What a device is, as a number.
fn attribute(device: sys::CUdevice, which: sys::CUdevice_attribute) -> Result<u32, Fault> {
    // SAFETY: the device is one that the driver gave.
    let value = unsafe { driver::device::get_attribute(device, which) };
    let value = value.map_err(|error| failed("to say what it can", error))?;
    Ok(value.unsigned_abs())
}

/// Whether the driver is there and new enough; what it speaks.
fn driver_version() -> Result<(u32, u32), Fault> {
    // SAFETY: it only tries to open the library.
    if !unsafe { sys::is_culib_present() } {
        return Err(Fault::Failed(
            "there is no NVIDIA driver (libcuda.so.1)".into(),
        ));
    }
    driver::init().map_err(|error| failed("to start", error))?;
    let mut version = 0;
    // SAFETY: the driver writes an integer.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }
        .result()
        .map_err(|error| failed("to say its version", error))?;
    let version = version.unsigned_abs();
    Ok((version / 1000, version % 1000 / 10))
}

fn capability(device: sys::CUdevice) -> Result<(u32, u32), Fault> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };
    Ok((attribute(device, MAJOR)?, attribute(device, MINOR)?))
}

fn device(number: usize) -> Result<sys::CUdevice, Fault> {
    let count = driver::device::get_count().map_err(|error| failed("to count devices", error))?;
    match c_int::try_from(number) {
        Ok(ordinal) if ordinal < count => {
            driver::device::get(ordinal).map_err(|error| failed("to be found", error))
        }
        _ => Err(Fault::Failed(format!(
            "there is no CUDA device {number}: this machine has {count}"
        ))),
    }
}

/// How many devices there are.
pub(super) fn count() -> Result<usize, Fault> {
    driver_version()?;
    let count = driver::device::get_count().map_err(|error| failed("to count devices", error))?;
    Ok(count.unsigned_abs() as usize)
}

/// The devices that there are.
pub(super) fn devices() -> Result<Vec<Description>, Fault> {
    let driver_speaks = driver_version()?;
    (0..count()?)
        .map(|number| {
            let device = device(number)?;
            let context = Context::new(device)?;
            let (free, memory) = context.memory()?;
            Ok(Description {
                number,
                name: driver::device::get_name(device)
                    .map_err(|error| failed("to say its name", error))?,
                capability: capability(device)?,
                memory,
                free,
                driver: driver_speaks,
            })
        })
        .collect()
}

/// A device's context: what lives on it.
#[derive(Debug)]
struct Context {
    device: sys::CUdevice,
    context: sys::CUcontext,
}

impl Context {
    fn new(device: sys::CUdevice) -> Result<Self, Fault> {
        // SAFETY: the device is one that the driver gave; it is released once, when this is dropped.
        let context = unsafe { driver::primary_ctx::retain(device) };
        let context = context.map_err(|error| failed("to be opened", error))?;
        Ok(Self { device, context })
    }

    /// Makes it this thread's.
    fn enter(&self) -> Result<(), Fault> {
        // SAFETY: it lives until this is dropped.
        unsafe { driver::ctx::set_current(self.context) }
            .map_err(|error| failed("to be entered", error))
    }

    /// Bytes free, and in all.
    fn memory(&self) -> Result<(u64, u64), Fault> {
        self.enter()?;
        let (free, total) =
            driver::mem_get_info().map_err(|error| failed("to say its memory", error))?;
        Ok((free as u64, total as u64))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained once, and whatever lives on it is gone. A failure leaves nothing to do.
        let _ = unsafe { driver::primary_ctx::release(self.device) };
    }
}

/// Memory of the host from which the device copies by itself, and the event behind the copy.
struct Stage {
    memory: *mut c_void,
    event: sys::CUevent,
}

/// A kernel, and how much shared memory it may have.
#[derive(Clone, Copy)]
struct Kernel {
    function: sys::CUfunction,
    shared: usize,
}

#[derive(Default)]
struct State {
    kernels: BTreeMap<String, Kernel>,
    stages: Vec<Stage>,
    next: usize,
    /// While times are taken: what ran, and the events before and behind it.
    trace: Option<Vec<(String, [sys::CUevent; 2])>>,
}

/// See the module.
pub(super) struct Cuda {
    state: Mutex<State>,
    blas: cublas_sys::cublasHandle_t,
    workspace: sys::CUdeviceptr,
    module: sys::CUmodule,
    stream: sys::CUstream,
    /// The most shared memory of a block.
    most_shared: usize,
    /// Last, so that it goes when nothing lives on it any more.
    context: Context,
}

impl std::fmt::Debug for Cuda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cuda").finish_non_exhaustive()
    }
}

// SAFETY: handles of the driver may be used by any thread that has entered the context, which every method does first;
// cuBLAS's handle and the stages are used under the lock of `state`.
unsafe impl Send for Cuda {}
// SAFETY: as above.
unsafe impl Sync for Cuda {}

impl Cuda {
    /// Opens device `number`.
    pub(super) fn open(number: usize) -> Result<Self, Fault> {
        let speaks = driver_version()?;
        if speaks < DRIVER {
            return Err(Fault::Failed(format!(
                "the NVIDIA driver speaks CUDA {}.{}; CUDA {}.{} is needed, which drivers have from 580 on",
                speaks.0, speaks.1, DRIVER.0, DRIVER.1
            )));
        }
        let device = device(number)?;
        let has = capability(device)?;
        if has < CAPABILITY {
            return Err(Fault::Failed(format!(
                "CUDA device {number} has compute capability {}.{}; {}.{} is needed",
                has.0, has.1, CAPABILITY.0, CAPABILITY.1
            )));
        }
        // SAFETY: it only tries to open the library.
        if !unsafe { cublas_sys::is_culib_present() } {
            return Err(Fault::Failed(
                "cuBLAS (libcublas.so.13) is not there: name its folder in LD_LIBRARY_PATH".into(),
            ));
        }
        if let Some(name) = OVERRIDES
            .into_iter()
            .find(|name| std::env::var_os(name).is_some())
        {
            return Err(Fault::Failed(format!(
                "{name} is set, and would change how cuBLAS rounds without the key saying so: unset it"
            )));
        }
        let most_shared = attribute(
            device,
            sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        )?;
        let context = Context::new(device)?;
        context.enter()?;
        let kind = driver::stream::StreamKind::NonBlocking;
        let stream =
            driver::stream::create(kind).map_err(|error| failed("to make a stream", error))?;
        // SAFETY: the image is a whole fat binary, which nvcc made, and stays where it is.
        let module = unsafe { driver::module::load_data(KERNELS.0.as_ptr().cast()) }
            .map_err(|error| failed("to load the kernels", error))?;
        let blas = cublas::create_handle().map_err(failed_product)?;
        // SAFETY: the context is entered.
        let workspace = unsafe { driver::malloc_sync(WORKSPACE) }
            .map_err(|error| failed("to give memory to cuBLAS", error))?;
        let cuda = Self {
            state: Mutex::default(),
            blas,
            workspace,
            module,
            stream,
            most_shared: most_shared as usize,
            context,
        };
        cuda.set_up_products()?;
        Ok(cuda)
    }

    fn set_up_products(&self) -> Result<(), Fault> {
        use cublas_sys::cublasAtomicsMode_t::CUBLAS_ATOMICS_NOT_ALLOWED;
        use cublas_sys::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
        let mut version = 0;
        // SAFETY: cuBLAS writes an integer.
        unsafe { cublas_sys::cublasGetVersion_v2(self.blas, &raw mut version) }
            .result()
            .map_err(failed_product)?;
        if version / 10_000 != CUBLAS {
            return Err(Fault::Failed(format!(
                "cuBLAS {} was found; {CUBLAS} is needed: name the folder of libcublas.so.{CUBLAS} in LD_LIBRARY_PATH, first",
                version / 10_000
            )));
        }
        // SAFETY: handle, stream and workspace live as long as `self`. The workspace comes behind the stream, which sets
        // it back.
        unsafe {
            cublas::set_stream(self.blas, self.stream.cast()).map_err(failed_product)?;
            for status in [
                cublas_sys::cublasSetWorkspace_v2(
                    self.blas,
                    self.workspace as *mut c_void,
                    WORKSPACE,
                ),
                cublas_sys::cublasSetAtomicsMode(self.blas, CUBLAS_ATOMICS_NOT_ALLOWED),
                cublas_sys::cublasSetMathMode(
                    self.blas,
                    CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION,
                ),
            ] {
                status.result().map_err(failed_product)?;
            }
        }
        Ok(())
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, Fault> {
        self.context.enter()?;
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn wait(&self) -> Result<(), Fault> {
        // SAFETY: the stream lives as long as `self`.
        unsafe { driver::stream::synchronize(self.stream) }
            .map_err(|error| failed("in its work", error))
    }

    /// A piece of memory to copy from that the device does not read any more.
    fn stage<'s>(&self, state: &'s mut State) -> Result<&'s Stage, Fault> {
        let index = state.next % STAGES;
        state.next += 1;
        if index == state.stages.len() {
            // SAFETY: the context is entered; memory and event are freed when `self` is dropped.
            let memory = unsafe { driver::malloc_host(STAGE, 0) }
                .map_err(|error| failed("to take memory of the host", error))?;
            let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
            let event =
                driver::event::create(flags).map_err(|error| failed("to make an event", error))?;
            state.stages.push(Stage { memory, event });
        } else {
            // SAFETY: the event is one of ours.
            unsafe { driver::event::synchronize(state.stages[index].event) }
                .map_err(|error| failed("in its work", error))?;
        }
        Ok(&state.stages[index])
    }

    /// Asks for work, and for its time where times are taken.
    fn timed(
        &self,
        state: &mut State,
        name: &str,
        work: impl FnOnce() -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let Some(trace) = &mut state.trace else {
            return work();
        };
        let mark = || {
            let flags = sys::CUevent_flags::CU_EVENT_DEFAULT;
            driver::event::create(flags).and_then(|event| {
                // SAFETY: event and stream are ours.
                unsafe { driver::event::record(event, self.stream) }.map(|()| event)
            })
        };
        let taken = |error| failed("to take a time", error);
        let before = mark().map_err(taken)?;
        work()?;
        trace.push((name.to_owned(), [before, mark().map_err(taken)?]));
        Ok(())
    }

    /// The kernel `name`, which may have so much shared memory.
    fn kernel(
        &self,
        state: &mut State,
        name: &str,
        shared: usize,
    ) -> Result<sys::CUfunction, Fault> {
        if !state.kernels.contains_key(name) {
            let c_name = CString::new(name).map_err(|error| Fault::Failed(error.to_string()))?;
            // SAFETY: the module lives as long as `self`.
            let function = unsafe { driver::module::get_function(self.module, c_name) }
                .map_err(|error| failed(&format!("to find kernel `{name}`"), error))?;
            let kernel = Kernel {
                function,
                shared: SHARED,
            };
            state.kernels.insert(name.to_owned(), kernel);
        }
        let kernel = state.kernels.get_mut(name);
        let kernel = kernel.ok_or_else(|| Fault::Failed(format!("there is no kernel `{name}`")))?;
        if shared > kernel.shared {
            use sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as MOST;
            // SAFETY: the function is one of the module's.
            unsafe {
                driver::function::set_function_attribute(kernel.function, MOST, shared as i32)
            }
            .map_err(|error| {
                failed(
                    &format!("to give {shared} bytes of shared memory to `{name}`"),
                    error,
                )
            })?;
            kernel.shared = shared;
        }
        Ok(kernel.function)
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        let Ok(mut state) = self.state() else {
            return;
        };
        let stages = std::mem::take(&mut state.stages);
        drop(state);
        // SAFETY: all of it was made by `open` and `stage`, is freed once, and no work is left that uses it. A failure
        // leaves nothing to do.
        unsafe {
            let _ = driver::stream::synchronize(self.stream);
            let _ = cublas::destroy_handle(self.blas);
            let _ = driver::free_sync(self.workspace);
            for stage in stages {
                let _ = driver::event::destroy(stage.event);
                let _ = driver::free_host(stage.memory);
            }
            let _ = driver::module::unload(self.module);
            let _ = driver::stream::destroy(self.stream);
        }
    }
}

impl Device for Cuda {
    fn allocate(&self, bytes: usize) -> Result<Address, Fault> {
        use sys::cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY;
        self.context.enter()?;
        // SAFETY: the context is entered, and there is a byte at least.
        match unsafe { driver::malloc_sync(bytes.max(1)) } {
            Ok(address) => Ok(Address(address)),
            Err(driver::DriverError(CUDA_ERROR_OUT_OF_MEMORY)) => Err(Fault::OutOfMemory {
                wanted: bytes as u64,
                free: self.free_memory()?,
            }),
            Err(error) => Err(failed("to give memory", error)),
        }
    }

    fn release(&self, address: Address, _: usize) {
        // What was asked for may still be using it.
        if self.context.enter().is_ok() && self.wait().is_ok() {
            // SAFETY: it came from `allocate`, and is given back once. A failure leaves nothing to do.
            let _ = unsafe { driver::free_sync(address.0) };
        }
    }

    fn clear(&self, address: Address, bytes: usize) -> Result<(), Fault> {
        self.context.enter()?;
        // SAFETY: the bytes are the device's; the stream keeps the order.
        unsafe { driver::memset_d8_async(address.0, 0, bytes, self.stream) }
            .map_err(|error| failed("to clear memory", error))
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), Fault> {
        self.context.enter()?;
        // SAFETY: as in `clear`.
        unsafe { driver::memcpy_dtod_async(to.0, from.0, bytes, self.stream) }
            .map_err(|error| failed("to copy memory", error))
    }

    fn upload(&self, bytes: &[u8], to: Address) -> Result<(), Fault> {
        let mut state = self.state()?;
        for (index, bytes) in bytes.chunks(STAGE).enumerate() {
            let stage = self.stage(&mut state)?;
            // SAFETY: the stage has room for so much, and nobody reads it; the copy is ordered by the stream, and
            // the event behind it says when the stage may be written again.
            unsafe {
                let staged = std::slice::from_raw_parts_mut(stage.memory.cast(), bytes.len());
                staged.copy_from_slice(bytes);
                driver::memcpy_htod_async(to.0 + (index * STAGE) as u64, staged, self.stream)
                    .and_then(|()| driver::event::record(stage.event, self.stream))
            }
            .map_err(|error| failed("to take numbers", error))?;
        }
        Ok(())
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), Fault> {
        self.context.enter()?;
        // SAFETY: the bytes are the device's, and `bytes` stays until the stream has been waited for.
        unsafe { driver::memcpy_dtoh_async(bytes, from.0, self.stream) }
            .map_err(|error| failed("to give numbers", error))?;
        self.wait()
    }

    fn launch(&self, kernel: &str, grid: Grid, arguments: &[&dyn Argument]) -> Result<(), Fault> {
        if grid.shared > self.most_shared {
            return Err(Fault::Unfit(format!(
                "it takes {} bytes of shared memory a block, and this GPU has {}; in `bf16` it takes half as much",
                grid.shared, self.most_shared
            )));
        }
        let mut state = self.state()?;
        let function = self.kernel(&mut state, kernel, grid.shared)?;
        let mut pointers: Vec<*mut c_void> = arguments
            .iter()
            .map(|argument| argument.pointer().cast_mut())
            .collect();
        let [x, y, z] = grid.blocks.map(|blocks| blocks as u32);
        self.timed(&mut state, kernel, || {
            // SAFETY: the driver copies the arguments before it returns; that they are the kernel's own, and that
            // kernels stay within their buffers, is what the tests with the simulated device hold.
            unsafe {
                driver::launch_kernel(
                    function,
                    (x, y, z),
                    (grid.threads as u32, 1, 1),
                    grid.shared as u32,
                    self.stream,
                    &mut pointers,
                )
            }
            .map_err(|error| failed(&format!("to launch `{kernel}`"), error))
        })
    }

    /// cuBLAS counts columns first: row-major c = a b is its cᵀ = bᵀ aᵀ.
    fn product(&self, product: &Product) -> Result<(), Fault> {
        use cublas_sys::cublasComputeType_t::{CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_32F_FAST_TF32};
        use cublas_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DFALT;
        use cublas_sys::cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};
        let sort = |element| match element {
            Element::F32 => cublas_sys::cudaDataType::CUDA_R_32F,
            Element::Bf16 => cublas_sys::cudaDataType::CUDA_R_16BF,
        };
        let operation = |transposed| if transposed { CUBLAS_OP_T } else { CUBLAS_OP_N };
        let size = |count: usize| {
            c_int::try_from(count)
                .map_err(|_| Fault::Unfit(format!("{count} numbers in a row of a product")))
        };
        let compute = match product.rounds {
            false => CUBLAS_COMPUTE_32F,
            true => CUBLAS_COMPUTE_32F_FAST_TF32,
        };
        let alpha = 1.0_f32;
        let beta = if product.adds { 1.0_f32 } else { 0.0 };
        let [columns, rows, depth] = [product.columns, product.rows, product.depth].map(size);
        let (columns, rows, depth) = (columns?, rows?, depth?);
        let strides = [product.b.stride, product.a.stride, product.c_stride].map(size);
        let [b_stride, a_stride, c_stride] = strides;
        let (b_stride, a_stride, c_stride) = (b_stride?, a_stride?, c_stride?);
        let mut state = self.state()?;
        self.timed(&mut state, "product", || {
            // SAFETY: the handle is used under the lock; the operands are the device's, as long as their sizes say.
            unsafe {
                cublas_sys::cublasGemmEx(
                    self.blas,
                    operation(product.b.transposed),
                    operation(product.a.transposed),
                    columns,
                    rows,
                    depth,
                    (&raw const alpha).cast(),
                    product.b.address.0 as *const c_void,
                    sort(product.from),
                    b_stride,
                    product.a.address.0 as *const c_void,
                    sort(product.from),
                    a_stride,
                    (&raw const beta).cast(),
                    product.c.0 as *mut c_void,
                    sort(product.to),
                    c_stride,
                    compute,
                    CUBLAS_GEMM_DFALT,
                )
            }
            .result()
            .map_err(failed_product)
        })
    }

    fn free_memory(&self) -> Result<u64, Fault> {
        self.context.memory().map(|(free, _)| free)
    }

    fn trace(&self, begins: bool) -> Result<Vec<Spent>, Fault> {
        self.context.enter()?;
        self.wait()?;
        let trace = self.state()?.trace.take();
        if begins {
            self.state()?.trace = Some(Vec::new());
            return Ok(Vec::new());
        }
        let mut spent: BTreeMap<String, Spent> = BTreeMap::new();
        for (name, [before, behind]) in trace.unwrap_or_default() {
            // SAFETY: both were recorded on the stream, which has been waited for; they are destroyed once.
            let milliseconds = unsafe {
                let elapsed = driver::event::elapsed(before, behind);
                let _ = driver::event::destroy(before);
                let _ = driver::event::destroy(behind);
                elapsed
            };
            let milliseconds = milliseconds.map_err(|error| failed("to take a time", error))?;
            let one = spent.entry(name.clone()).or_insert(Spent {
                name,
                count: 0,
                milliseconds: 0.0,
            });
            one.count += 1;
            one.milliseconds += f64::from(milliseconds);
        }
        Ok(spent.into_values().collect())
    }
}
