//! The Huffman codes of sequential JPEGs: the same coefficients as by libjpeg, sooner.
//!
//! In: a libjpeg that has started to decode. Out: it asks `decode_mcu` for each MCU from then on.
//! Never: judges what is broken: an MCU at a marker, over the end of the bytes or with a code that
//! is none is given back to libjpeg's own decoder, which begins it from the state before it.
//!
//! Not the same may be, of a damaged file, what depends on how far libjpeg had read ahead: which of
//! its own decoders takes an MCU, of which the fast one says nothing of a code that is none and
//! leaves numbers in the block where 0xFF stands before the 0xFF 0 of data; and whether it warns of
//! the end where a part just ended whose bits are all there.
//!
//! Half of the time that it takes to shrink a photograph goes here. What is saved: eight bytes are
//! taken at once, by no branch (`scan.rs`); one look-up tells the bits of code and coefficient
//! together, so that the next code need not wait for the coefficient before it; and the bits stay
//! in registers. The tables are made of libjpeg's, which it has checked.

use std::ffi::{c_int, c_long, c_uint, c_void};
use std::mem::{offset_of, size_of};
use std::ptr;

use mozjpeg_sys as sys;

use super::scan::{Bits, Place, Scan};

/// Bits of a code that one look-up knows; with 9 more codes are looked for one by one.
const LOOK_BITS: u32 = 10;

/// Coefficients of a block.
const BLOCK_LEN: usize = 64;

/// Bytes of a block at most, and as many again: 64 × 31 bits are 248.
const BLOCK_BYTES_MAX: usize = 8 * BLOCK_LEN;

/// Blocks of an MCU at most.
const BLOCKS_MAX: usize = 10;

/// A run of 16 zeroes, and one.
const LONG_RUN: usize = 16;

/// The place of each coefficient in its block; a run beyond the end stays on the last one.
static NATURAL: [u8; 128] = natural();

const fn natural() -> [u8; 128] {
    // ITU-T T.81, figure A.6: along the diagonals, up and down in turn.
    let mut places = [63; 128];
    let (mut at, mut diagonal) = (0, 0);
    while diagonal < 15 {
        let mut step = 0;
        while step <= diagonal {
            let (row, column) =
                if diagonal % 2 == 0 { (diagonal - step, step) } else { (step, diagonal - step) };
            if row < 8 && column < 8 {
                places[at] = 8 * row + column;
                at += 1;
            }
            step += 1;
        }
        diagonal += 1;
    }
    places
}

type Block = [i16; BLOCK_LEN];

type DecodeMcu =
    unsafe extern "C-unwind" fn(&mut sys::jpeg_decompress_struct, *mut *mut Block) -> c_int;

/// The fields of `jpeg_decompress_struct` from `comp_info` on (jpeglib.h), of which mozjpeg-sys
/// shows only some.
#[repr(C)]
struct Rest {
    comp_info: *mut sys::jpeg_component_info,
    progressive_mode: c_int,
    arith_code: c_int,
    arithmetic: [u8; 48],
    restart_interval: c_uint,
    saw_jfif_marker: c_int,
    jfif_version: [u8; 2],
    density_unit: u8,
    density: [u16; 2],
    saw_adobe_marker: c_int,
    adobe_transform: u8,
    ccir601_sampling: c_int,
    marker_list: *mut c_void,
    max_h_samp_factor: c_int,
    max_v_samp_factor: c_int,
    min_dct_scaled_size: c_int,
    total_imcu_rows: c_uint,
    sample_range_limit: *mut u8,
    comps_in_scan: c_int,
    cur_comp_info: [*mut sys::jpeg_component_info; 4],
    mcus_per_row: c_uint,
    mcu_rows_in_scan: c_uint,
    blocks_in_mcu: c_int,
    mcu_membership: [c_int; BLOCKS_MAX],
    spectral: [c_int; 4],
    unread_marker: c_int,
    modules: [*mut c_void; 6],
    entropy: *mut Entropy,
    later_modules: [*mut c_void; 4],
}

/// Where the rest begins.
const REST: usize = offset_of!(sys::jpeg_decompress_struct, comp_info);

// With a libjpeg whose struct is another one this does not compile. What lies behind `Entropy` is
// private to jdhuff.c: for its sake the version of mozjpeg-sys is pinned, and the tests compare.
const _: () = {
    type Raw = sys::jpeg_decompress_struct;
    assert!(REST + offset_of!(Rest, density_unit) == offset_of!(Raw, density_unit));
    assert!(REST + offset_of!(Rest, marker_list) == offset_of!(Raw, marker_list));
    assert!(REST + offset_of!(Rest, max_h_samp_factor) == offset_of!(Raw, max_h_samp_factor));
    assert!(REST + size_of::<Rest>() == size_of::<Raw>());
};

/// libjpeg's Huffman decoder (jdhuff.c, `huff_entropy_decoder`).
#[repr(C)]
struct Entropy {
    start_pass: *const c_void,
    decode_mcu: DecodeMcu,
    insufficient_data: c_int,
    held: Held,
    last_dc: [c_int; 4],
    restarts_to_go: c_uint,
    tables: [*const Derived; 8],
    dc: [*const Derived; BLOCKS_MAX],
    ac: [*const Derived; BLOCKS_MAX],
    dc_needed: [c_int; BLOCKS_MAX],
    ac_needed: [c_int; BLOCKS_MAX],
}

/// Bits that were taken and not used, the last one lowest (jdhuff.h, `bitread_perm_state`).
#[repr(C)]
#[derive(Clone, Copy)]
struct Held {
    bits: u64,
    count: c_int,
}

/// libjpeg's table of codes (jdhuff.h, `d_derived_tbl`).
#[repr(C)]
struct Derived {
    code_max: [c_long; 18],
    symbol_offset: [c_long; 18],
    symbols: *const sys::JHUFF_TBL,
    lookup: [c_int; 256],
}

/// What libjpeg asks in place of its own decoder.
pub(super) struct Faster {
    theirs: DecodeMcu,
    tables: Vec<Table>,
    /// Which table each block of an MCU has for its constant and for its other coefficients.
    dc: [usize; BLOCKS_MAX],
    ac: [usize; BLOCKS_MAX],
    scan: Scan,
    /// Whether `scan` is where the decoder is; else libjpeg's own state is.
    leads: bool,
    mcus_left: u64,
}

/// Entries by the next [`LOOK_BITS`] bits; 0 for a code that is longer.
struct Table {
    of: *const Derived,
    has_runs: bool,
    entries: Box<[u32; 1 << LOOK_BITS]>,
}

/// What a code of `length` bits says, a byte each from the lowest: the bits of code and
/// coefficient, 0 without a coefficient; the run before it, and one; the bits of the code; those
/// of the coefficient.
fn entry(symbol: u8, length: u32, has_runs: bool) -> u32 {
    let size = u32::from(if has_runs { symbol & 15 } else { symbol });
    let run = u32::from(if has_runs { symbol >> 4 } else { 0 });
    let bits = if size == 0 { 0 } else { length + size };
    size << 24 | length << 16 | (run + 1) << 8 | bits
}

/// The coefficient of `size` bits, 1 to 15, that come first in `bits` (ITU-T T.81, F.2.2.1).
#[inline(always)]
fn coefficient(bits: u64, size: u32) -> i32 {
    let is_negative = !((bits as i64) >> 63) as u64;
    let raw = bits.wrapping_shr(size.wrapping_neg());
    (raw as i32).wrapping_sub((is_negative & 1_u64.wrapping_shl(size).wrapping_sub(1)) as i32)
}

impl Table {
    /// # Safety
    ///
    /// `of` is a table of libjpeg's.
    unsafe fn new(of: *const Derived, has_runs: bool) -> Self {
        // SAFETY: the caller's; libjpeg keeps the symbols that a table was made of.
        let symbols = unsafe { &*(*of).symbols };
        let mut entries = Box::new([0; 1 << LOOK_BITS]);
        let (mut code, mut at) = (0, 0);
        for length in 1..=LOOK_BITS {
            for _ in 0..symbols.bits[length as usize] {
                let entry = entry(symbols.huffval[at], length, has_runs);
                let free = LOOK_BITS - length;
                entries[code << free..(code + 1) << free].fill(entry);
                (code, at) = (code + 1, at + 1);
            }
            code <<= 1;
        }
        Self { of, has_runs, entries }
    }

    /// The entry of the code that comes first in `bits`; 0 if it is none.
    #[inline(always)]
    fn entry(&self, bits: u64) -> u32 {
        match self.entries[(bits >> (64 - LOOK_BITS)) as usize] {
            0 => self.long_entry(bits),
            entry => entry,
        }
    }

    #[cold]
    #[inline(never)]
    fn long_entry(&self, bits: u64) -> u32 {
        // SAFETY: libjpeg's tables live as long as its decoder, and so do their symbols.
        let table = unsafe { &*self.of };
        for length in LOOK_BITS + 1..=16 {
            let code = (bits >> (64 - length)) as c_long;
            if code <= table.code_max[length as usize] {
                let at = (code + table.symbol_offset[length as usize]) as usize & 0xff;
                // SAFETY: as above.
                return entry(unsafe { (*table.symbols).huffval[at] }, length, self.has_runs);
            }
        }
        0
    }

    /// What the constant coefficient is more than the last one; none as for `coefficients`.
    ///
    /// # Safety
    ///
    /// As [`Bits::filled`].
    #[inline(always)]
    unsafe fn difference(&self, bits: Bits) -> Option<(i32, Bits)> {
        // SAFETY: the caller's.
        let bits = unsafe { bits.filled() };
        let entry = self.entry(bits.bits);
        let (length, size) = (entry >> 16 & 0xff, entry >> 24);
        if length == 0 {
            return None;
        }
        // libjpeg has checked that differences have no more than 15 bits.
        let difference =
            if size == 0 { 0 } else { coefficient(bits.bits.wrapping_shl(length), size) };
        Some((difference, bits.without(length + size)))
    }

    /// Calls with the place and value of each other coefficient; none if libjpeg is to do it. The
    /// bits begin with a whole code.
    ///
    /// # Safety
    ///
    /// [`BLOCK_BYTES_MAX`] bytes and a word can be read from where `bits` stand.
    #[inline(always)]
    unsafe fn coefficients(
        &self,
        mut bits: Bits,
        mut call: impl FnMut(usize, i16),
    ) -> Option<Bits> {
        let mut at = 0;
        while at < BLOCK_LEN - 1 {
            // The code is looked up before more bits come: what it waits for is the code before it,
            // and nothing else.
            let entry = self.entry(bits.bits);
            // SAFETY: the caller's: at most 63 codes and coefficients were read since.
            let full = unsafe { bits.filled() };
            let run = (entry >> 8 & 0xff) as usize;
            if entry & 0xff != 0 {
                at += run;
                let value = coefficient(full.bits.wrapping_shl(entry >> 16), entry >> 24);
                bits = full.without(entry);
                call(usize::from(NATURAL[at & 127]), value as i16);
                continue;
            }
            if entry == 0 {
                return None;
            }
            bits = full.without(entry >> 16);
            if run < LONG_RUN {
                break;
            }
            at += LONG_RUN;
        }
        Some(bits)
    }
}

/// Makes libjpeg ask [`Faster`] from now on; none, and nothing done, for progressive files and
/// arithmetic codes.
///
/// # Safety
///
/// `jpeg_start_decompress` has been called on `raw`, no row was read since, `client_data` is
/// nobody else's, and what is returned lives until the last row is read.
pub(super) unsafe fn install(raw: &mut sys::jpeg_decompress_struct) -> Option<Box<Faster>> {
    #[cfg(test)]
    if tests::is_off() {
        return None;
    }
    // SAFETY: `raw` ends with a `Rest`, as is asserted above.
    let rest = unsafe { &*(&raw const *raw).byte_add(REST).cast::<Rest>() };
    if rest.progressive_mode != 0 || rest.arith_code != 0 {
        return None;
    }
    // SAFETY: of a file that is neither, libjpeg has made the Huffman decoder of jdhuff.c.
    let entropy = unsafe { &mut *rest.entropy };
    let mut faster = Box::new(Faster {
        theirs: entropy.decode_mcu,
        tables: Vec::with_capacity(4),
        dc: [0; BLOCKS_MAX],
        ac: [0; BLOCKS_MAX],
        scan: Scan::new(),
        leads: false,
        mcus_left: u64::from(rest.mcus_per_row) * u64::from(rest.mcu_rows_in_scan),
    });
    for block in 0..rest.blocks_in_mcu as usize {
        // SAFETY: libjpeg has made the tables of each block when it began the scan.
        unsafe {
            faster.dc[block] = faster.table(entropy.dc[block], false);
            faster.ac[block] = faster.table(entropy.ac[block], true);
        }
    }
    entropy.decode_mcu = decode_mcu;
    raw.common.client_data = (&raw mut *faster).cast();
    Some(faster)
}

/// libjpeg calls this for each MCU; without `blocks` their values are not wanted.
unsafe extern "C-unwind" fn decode_mcu(
    raw: &mut sys::jpeg_decompress_struct,
    blocks: *mut *mut Block,
) -> c_int {
    // SAFETY: `install` put it there, its caller keeps it, and nobody else has it now.
    let faster = unsafe { &mut *raw.common.client_data.cast::<Faster>() };
    faster.mcus_left = faster.mcus_left.saturating_sub(1);
    // SAFETY: libjpeg gives a block for each of an MCU, all zero, or none.
    let is_done = unsafe { faster.decode(raw, blocks) }.is_some();
    if !is_done || faster.mcus_left == 0 {
        // SAFETY: as there.
        unsafe { faster.give_back(raw) };
    }
    if is_done {
        #[cfg(test)]
        tests::DECODED.set(tests::DECODED.get() + 1);
        return 1;
    }
    // SAFETY: libjpeg's own, with what it gave; its state is that before the MCU.
    unsafe { (faster.theirs)(raw, blocks) }
}

impl Faster {
    /// The index of the table that is made of `of`.
    ///
    /// # Safety
    ///
    /// As [`Table::new`].
    unsafe fn table(&mut self, of: *const Derived, has_runs: bool) -> usize {
        let known = self.tables.iter().position(|table| ptr::eq(table.of, of));
        known.unwrap_or_else(|| {
            // SAFETY: the caller's.
            self.tables.push(unsafe { Table::new(of, has_runs) });
            self.tables.len() - 1
        })
    }

    /// Decodes an MCU; none, and no state changed, if libjpeg is to do it. Coefficients that are
    /// in `blocks` by then are those that it will put there.
    ///
    /// # Safety
    ///
    /// libjpeg asks for an MCU of `raw`.
    unsafe fn decode(
        &mut self,
        raw: &mut sys::jpeg_decompress_struct,
        blocks: *mut *mut Block,
    ) -> Option<()> {
        // SAFETY: as in `install`, and libjpeg has a source while it decodes.
        let (rest, source) =
            unsafe { (&*(&raw const *raw).byte_add(REST).cast::<Rest>(), &*raw.src) };
        // SAFETY: as in `install`.
        let entropy = unsafe { &mut *rest.entropy };
        let num_blocks = rest.blocks_in_mcu as usize;
        let is_restart = rest.restart_interval != 0 && entropy.restarts_to_go == 0;
        if rest.unread_marker != 0 || entropy.insufficient_data != 0 || is_restart {
            return None;
        }
        if !self.leads {
            let Held { bits, count } = entropy.held;
            if count >= 64 {
                return None;
            }
            let next = source.next_input_byte;
            self.scan.begin(Place { bits, count: count as u32, next });
            self.leads = true;
        }
        // libjpeg's own source stays where it was begun with.
        // SAFETY: libjpeg's source has so many bytes.
        let end = unsafe { source.next_input_byte.add(source.bytes_in_buffer) };
        // SAFETY: these bytes are those that the scan was begun with.
        let mut bits = unsafe { self.scan.bits(BLOCK_BYTES_MAX * num_blocks + 16, end) };
        let mut last_dc = entropy.last_dc;
        for at in 0..num_blocks {
            // SAFETY: libjpeg's blocks, of which each is there.
            let mut block = (!blocks.is_null()).then(|| unsafe { &mut **blocks.add(at) });
            // SAFETY: bytes for every block were there.
            let (difference, left) = unsafe { self.tables[self.dc[at]].difference(bits) }?;
            if entropy.dc_needed[at] != 0 {
                let last = &mut last_dc[rest.mcu_membership[at] as usize & 3];
                *last = last.wrapping_add(difference);
                if let Some(block) = &mut block {
                    block[0] = *last as i16;
                }
            }
            let table = &self.tables[self.ac[at]];
            let block = block.filter(|_| entropy.ac_needed[at] != 0);
            // SAFETY: as above.
            bits = unsafe {
                match block {
                    Some(block) => table.coefficients(left, |at, value| block[at & 63] = value),
                    None => table.coefficients(left, |_, _| ()),
                }
            }?;
        }
        if !self.scan.advance(bits) {
            return None;
        }
        entropy.last_dc = last_dc;
        entropy.restarts_to_go = entropy.restarts_to_go.wrapping_sub(rest.restart_interval.min(1));
        Some(())
    }

    /// Tells libjpeg where the decoder is, which leads from then on.
    ///
    /// # Safety
    ///
    /// As [`Self::decode`].
    unsafe fn give_back(&mut self, raw: &mut sys::jpeg_decompress_struct) {
        if !std::mem::take(&mut self.leads) {
            return;
        }
        let Place { bits, count, next } = self.scan.place();
        // SAFETY: as in `decode`.
        let (rest, source) =
            unsafe { (&*(&raw const *raw).byte_add(REST).cast::<Rest>(), &mut *raw.src) };
        // SAFETY: both in the same bytes, the second not before the first.
        source.bytes_in_buffer -= unsafe { next.offset_from(source.next_input_byte) } as usize;
        source.next_input_byte = next;
        // SAFETY: as in `install`.
        unsafe { (*rest.entropy).held = Held { bits, count: count as c_int } };
    }
}

#[cfg(test)]
#[path = "huffman_tests.rs"]
mod tests;
