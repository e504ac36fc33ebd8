//! A device for tests: the kernels of `cuda/` compiled for the CPU, products by the CPU's own, memory with a limit.
//!
//! It shows what a GPU would show of the kernels' arithmetic, of the host's side, of addresses (its memory is separate
//! pieces, and unused numbers are not numbers) and of races (threads run in either order); nothing of speed, and not the
//! last bits of products.
#![expect(
    unsafe_code,
    reason = "kernels are foreign code, and a device's addresses are plain numbers"
)]

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::{Mutex, PoisonError};

use super::{Address, Argument, Device, Element, Fault, Grid, Operand, Product, Spent};
use crate::kernels::{Epilogue, Matrix, MatrixMut, gemm};

unsafe extern "C" {
    fn taper_simulated_launch(
        name: *const c_char,
        grid: *const u32,
        threads: u32,
        shared: u32,
        arguments: *const *const c_void,
        sizes: *const u32,
        count: u32,
        descending: c_int,
    ) -> c_int;
}

/// Pieces of memory begin at a multiple of this many bytes, as a GPU's do.
const ALIGNMENT: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct Simulation {
    limit: u64,
    descending: bool,
    pieces: Mutex<BTreeMap<u64, (Vec<u8>, usize)>>,
    launches: Mutex<BTreeMap<String, u64>>,
}

impl Default for Simulation {
    fn default() -> Self {
        Self {
            limit: u64::MAX,
            descending: false,
            pieces: Mutex::default(),
            launches: Mutex::default(),
        }
    }
}

impl Simulation {
    /// With so many bytes of memory.
    #[must_use]
    pub fn with_memory(self, limit: u64) -> Self {
        Self { limit, ..self }
    }

    /// With the threads of a kernel in descending order.
    #[must_use]
    pub fn descending(self) -> Self {
        Self {
            descending: true,
            ..self
        }
    }

    fn held(&self) -> u64 {
        let pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.values().map(|&(_, bytes)| bytes as u64).sum()
    }

    /// The place of a number of bytes in the piece that holds them all.
    fn check(&self, address: Address, bytes: usize) -> Result<*mut u8, Fault> {
        let pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = pieces.range(..=address.0).next_back();
        let inside =
            piece.is_some_and(|(&start, &(_, len))| address.0 + bytes as u64 <= start + len as u64);
        if inside || bytes == 0 {
            return Ok(address.0 as *mut u8);
        }
        Err(Fault::Failed(format!(
            "{bytes} bytes at {:#x} are not in the device's memory",
            address.0
        )))
    }

    /// The operand, wide and row-major.
    fn read(
        &self,
        operand: &Operand,
        [rows, columns]: [usize; 2],
        from: Element,
    ) -> Result<Vec<f32>, Fault> {
        let [rows, columns] = match operand.transposed {
            false => [rows, columns],
            true => [columns, rows],
        };
        let mut values = vec![0.0; rows * columns];
        for row in 0..rows {
            let start = operand.address.plus(row * operand.stride, from);
            self.read_row(start, from, &mut values[row * columns..(row + 1) * columns])?;
        }
        Ok(values)
    }

    fn read_row(&self, from: Address, element: Element, to: &mut [f32]) -> Result<(), Fault> {
        let mut bytes = vec![0; to.len() * element.bytes()];
        self.download(from, &mut bytes)?;
        for (to, bytes) in to.iter_mut().zip(bytes.chunks_exact(element.bytes())) {
            *to = match *bytes {
                [a, b] => f32::from_bits(u32::from(u16::from_le_bytes([a, b])) << 16),
                [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
                _ => 0.0,
            };
        }
        Ok(())
    }
}

/// To the nearest of 8 bits, ties to even.
fn narrow(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// To the nearest of 11 bits, ties to even: what a tensor core reads of a float.
fn tf32(x: f32) -> f32 {
    let bits = x.to_bits();
    if !x.is_finite() {
        return x;
    }
    f32::from_bits((bits + 0xfff + (bits >> 13 & 1)) & !0x1fff)
}

impl Device for Simulation {
    fn allocate(&self, bytes: usize) -> Result<Address, Fault> {
        let free = self.free_memory()?;
        if bytes as u64 > free {
            return Err(Fault::OutOfMemory {
                wanted: bytes as u64,
                free,
            });
        }
        // What is not written first is not a number.
        let mut storage = vec![0xff_u8; bytes + ALIGNMENT];
        let start = storage.as_mut_ptr() as u64;
        let address = start.next_multiple_of(ALIGNMENT as u64);
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.insert(address, (storage, bytes));
        Ok(Address(address))
    }

    fn release(&self, address: Address, _: usize) {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.remove(&address.0);
    }

    fn clear(&self, address: Address, bytes: usize) -> Result<(), Fault> {
        let place = self.check(address, bytes)?;
        // SAFETY: the bytes are of one piece, which stays where it is; nobody else looks at it meanwhile.
        unsafe { place.write_bytes(0, bytes) };
        Ok(())
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<(), Fault> {
        let (from, to) = (self.check(from, bytes)?, self.check(to, bytes)?);
        // SAFETY: as in `clear`; `copy` allows that the two overlap.
        unsafe { from.copy_to(to, bytes) };
        Ok(())
    }

    fn upload(&self, bytes: &[u8], to: Address) -> Result<(), Fault> {
        let place = self.check(to, bytes.len())?;
        // SAFETY: as in `clear`.
        unsafe { place.copy_from(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    fn download(&self, from: Address, bytes: &mut [u8]) -> Result<(), Fault> {
        let place = self.check(from, bytes.len())?;
        // SAFETY: as in `clear`.
        unsafe { place.copy_to(bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn launch(&self, kernel: &str, grid: Grid, arguments: &[&dyn Argument]) -> Result<(), Fault> {
        {
            let mut launches = self.launches.lock().unwrap_or_else(PoisonError::into_inner);
            *launches.entry(kernel.to_owned()).or_default() += 1;
        }
        let name = CString::new(kernel).map_err(|error| Fault::Failed(error.to_string()))?;
        let pointers: Vec<_> = arguments
            .iter()
            .map(|argument| argument.pointer())
            .collect();
        let sizes: Vec<_> = arguments
            .iter()
            .map(|argument| argument.size() as u32)
            .collect();
        let blocks = grid.blocks.map(|blocks| blocks as u32);
        // SAFETY: the arguments live until the call returns, and their number and sizes are compared with the kernel's
        // own there. That a kernel stays within its buffers is what tests with this device are for.
        let answer = unsafe {
            taper_simulated_launch(
                name.as_ptr(),
                blocks.as_ptr(),
                grid.threads as u32,
                grid.shared as u32,
                pointers.as_ptr(),
                sizes.as_ptr(),
                sizes.len() as u32,
                c_int::from(self.descending),
            )
        };
        match answer {
            0 => Ok(()),
            1 => Err(Fault::Failed(format!("there is no kernel `{kernel}`"))),
            _ => Err(Fault::Failed(format!("`{kernel}` takes other arguments"))),
        }
    }

    fn product(&self, product: &Product) -> Result<(), Fault> {
        let Product {
            rows,
            columns,
            depth,
            ..
        } = *product;
        let mut a = self.read(&product.a, [rows, depth], product.from)?;
        let mut b = self.read(&product.b, [depth, columns], product.from)?;
        if product.rounds {
            a.iter_mut().chain(&mut b).for_each(|x| *x = tf32(*x));
        }
        let a = match product.a.transposed {
            false => Matrix::new(&a, rows, depth),
            true => Matrix::new(&a, depth, rows).transposed(),
        };
        let b = match product.b.transposed {
            false => Matrix::new(&b, depth, columns),
            true => Matrix::new(&b, columns, depth).transposed(),
        };
        let mut c = vec![0.0; rows * columns];
        let line = |row: usize| product.c.plus(row * product.c_stride, product.to);
        let mut epilogue = Epilogue::Overwrite;
        if product.adds {
            for (row, c) in c.chunks_exact_mut(columns).enumerate() {
                self.read_row(line(row), product.to, c)?;
            }
            epilogue = Epilogue::Add;
        }
        gemm(a, b, MatrixMut::new(&mut c, rows, columns), epilogue);
        for (row, c) in c.chunks_exact(columns).enumerate() {
            let bytes: Vec<u8> = match product.to {
                Element::F32 => c.iter().flat_map(|x| x.to_le_bytes()).collect(),
                Element::Bf16 => c.iter().flat_map(|&x| narrow(x).to_le_bytes()).collect(),
            };
            self.upload(&bytes, line(row))?;
        }
        Ok(())
    }

    fn free_memory(&self) -> Result<u64, Fault> {
        Ok(self.limit - self.held().min(self.limit))
    }

    /// Counts launches; its times would say nothing.
    fn trace(&self, begins: bool) -> Result<Vec<Spent>, Fault> {
        let mut launches = self.launches.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = std::mem::take(&mut *launches).into_iter();
        Ok(match begins {
            true => Vec::new(),
            false => spent
                .map(|(name, count)| Spent {
                    name,
                    count,
                    milliseconds: 0.0,
                })
                .collect(),
        })
    }
}
