//! Sums over rows, and the gradients of attention side by side.
//!
//! b images, a heads, t tokens, k width of a head.

use tch::{Device, Kind, TchError, Tensor};

use super::{Argument, EIGHT, Kernels, THREADS, WIDE_BYTES, assert_dense, ceil, is_known, is_wide};

/// Columns that a block sums up: `COLUMNS` in number.h.
const COLUMNS: i64 = 256;
/// Rows that a block takes at once: `COLUMN_WARPS` there.
const COLUMN_ROWS: i64 = 8;
/// Rows and columns that a block of `sum_partials` takes at once.
const SUM_SIDE: i64 = 32;
/// Rows at most, where a kernel divides in 32 bits.
pub(super) const ROWS_MAX: i64 = 1 << 31;

impl Kernels {
    /// Blocks of a kernel that sums columns, and room for their partial sums, float32.
    pub(super) fn column_grid(
        &self,
        rows: i64,
        columns: i64,
        device: Device,
    ) -> Result<([u32; 2], Tensor), TchError> {
        let across = ceil(columns, COLUMNS).max(1);
        let down = ceil(i64::from(self.blocks), across).clamp(1, ceil(rows, COLUMN_ROWS).max(1));
        let partials = Tensor::f_empty([down, columns], (Kind::Float, device))?;
        Ok(([across as u32, down as u32], partials))
    }

    /// Adds the sum over rows of `partials` to up to three vectors of `columns` numbers, which
    /// stand there side by side.
    pub(super) fn sum_partials(
        &self,
        partials: &Tensor,
        columns: i64,
        out: [Option<&Tensor>; 3],
    ) -> Result<(), TchError> {
        let rows = partials.size()[0];
        let stride = partials.numel() as i64 / rows.max(1);
        let vectors = out.iter().rposition(Option::is_some).map_or(0, |last| last + 1) as i64;
        assert!(vectors * columns <= stride, "{vectors} vectors of {columns} in {partials:?}");
        assert_dense(partials, Kind::Float, rows * stride);
        for vector in out.into_iter().flatten() {
            assert_dense(vector, Kind::Float, columns);
        }
        let arguments = [
            Argument::Tensor(partials),
            Argument::Index(rows),
            Argument::Index(stride),
            Argument::Index(columns),
            Argument::maybe(out[0]),
            Argument::maybe(out[1]),
            Argument::maybe(out[2]),
        ];
        let grid = [ceil(columns, SUM_SIDE) as u32, vectors as u32];
        let threads = (SUM_SIDE * SUM_SIDE) as u32;
        // SAFETY: as `sum_partials` of columns.cu takes them; sizes were asserted.
        unsafe { self.launch("sum_partials", grid, threads, &arguments) }
    }

    /// Adds the sum over rows of `matrix_nf` to `out_f`, float32.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn column_sum(&self, matrix_nf: &Tensor, out_f: &Tensor) -> Result<(), TchError> {
        let (n, f) = matrix_nf.size2()?;
        assert_dense(matrix_nf, matrix_nf.kind(), n * f);
        let (grid, partials) = self.column_grid(n, f, matrix_nf.device())?;
        let arguments = [
            Argument::Tensor(matrix_nf),
            Argument::Tensor(&partials),
            Argument::Index(n),
            Argument::Index(f),
            is_wide(f, &[matrix_nf]),
        ];
        // SAFETY: as `column_sum` of columns.cu takes them.
        unsafe { self.launch_of("column_sum", matrix_nf.kind(), grid, THREADS, &arguments)? };
        self.sum_partials(&partials, f, [Some(out_f), None, None])
    }

    /// Puts one to three tensors `[b, a, t, k]` side by side, `[b · t, parts · a · k]`, and adds
    /// the sum over rows to `out`, float32.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn pack_heads(&self, parts: &[&Tensor], out: &Tensor) -> Result<Tensor, TchError> {
        assert!((1..=3).contains(&parts.len()), "{} parts", parts.len());
        // The last side is to be dense; attention's ways back give it so.
        let dense = |part: &&Tensor| match part.stride()[3] {
            1 => Ok(part.shallow_clone()),
            _ => part.f_contiguous(),
        };
        let parts: Vec<Tensor> = parts.iter().map(dense).collect::<Result<_, _>>()?;
        let (sizes, kind) = (parts[0].size(), parts[0].kind());
        let (b, a, t, k) = parts[0].size4()?;
        assert!(is_known(kind) && b * t < ROWS_MAX, "{b} × {t} rows of {kind:?}");
        assert!(parts.iter().all(|part| part.size() == sizes && part.kind() == kind), "{parts:?}");
        let columns = parts.len() as i64 * a * k;
        let packed = Tensor::f_empty([b * t, columns], (kind, parts[0].device()))?;
        let (grid, partials) = self.column_grid(b * t, columns, packed.device())?;
        let mut arguments = Vec::with_capacity(20);
        let mut fits = k % EIGHT == 0;
        for at in 0..3 {
            let part = parts.get(at).unwrap_or(&parts[0]);
            let strides = part.stride();
            let places = [strides[0], strides[1], strides[2]];
            fits &= places.iter().all(|stride| stride % EIGHT == 0);
            fits &= (part.data_ptr() as usize).is_multiple_of(WIDE_BYTES);
            arguments.push(Argument::Tensor(part));
            arguments.extend(places.map(Argument::Index));
        }
        arguments.extend([
            Argument::Tensor(&packed),
            Argument::Tensor(&partials),
            Argument::Index(b * t),
            Argument::Index(t),
            Argument::Index(a * k),
            Argument::Index(k),
            Argument::Index(columns),
            Argument::Index(i64::from(fits)),
        ]);
        // SAFETY: as `pack_heads` of columns.cu takes them: three parts, of which those that are
        // not there are not read, since `columns` ends before them.
        unsafe { self.launch_of("pack_heads", kind, grid, THREADS, &arguments)? };
        self.sum_partials(&partials, columns, [Some(out), None, None])?;
        Ok(packed)
    }
}
