//! The corenet stem around its matrix products.
//!
//! b images, h w pixels, y x rows and columns of a grid, n = b · y · x rows, c channels.

use tch::{Kind, TchError, Tensor};

use super::columns::ROWS_MAX;
use super::{Argument, Kernels, THREADS, assert_dense, ceil, is_wide};

/// Side of a patch of the first convolution, and what it begins before the image.
const SIDE: i64 = 4;
/// Numbers of such a patch.
const PATCH: i64 = 3 * SIDE * SIDE;

/// Rows of a grid, and what their columns are normalised by.
#[derive(Clone, Copy, Debug)]
pub struct NormalRows<'t> {
    /// The rows, `[n, c]`.
    pub x_nc: &'t Tensor,
    /// Images, rows and columns of the grid; rows and columns are even.
    pub grid: [i64; 3],
    /// Mean, 1 ÷ deviation, weight and bias of each channel, `[4, c]`, float32.
    pub vectors_4c: &'t Tensor,
}

impl NormalRows<'_> {
    fn check(&self) -> Result<(i64, i64), TchError> {
        let (n, c) = self.x_nc.size2()?;
        let [b, y, x] = self.grid;
        assert!(b * y * x == n && y % 2 == 0 && x % 2 == 0 && n < ROWS_MAX, "{self:?}");
        assert_dense(self.x_nc, self.x_nc.kind(), n * c);
        assert_dense(self.vectors_4c, Kind::Float, 4 * c);
        Ok((n, c))
    }

    /// What all three kernels are told of the grid.
    fn shape(&self, n: i64, c: i64) -> [Argument<'static>; 4] {
        [n, self.grid[1], self.grid[2], c].map(Argument::Index)
    }
}

impl Kernels {
    /// Pixels `[b, h, w, 3]`, bytes or numbers 0…1 of `kind`, of sides that are multiples of four
    /// → the rows that the first product takes, `[b · h/4 · w/4, 48]`, by colour, line and column.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn stem_patches(&self, pixels_bhwc: &Tensor, kind: Kind) -> Result<Tensor, TchError> {
        let (b, height, width, channels) = pixels_bhwc.size4()?;
        let fits = channels == 3 && height % SIDE == 0 && width % SIDE == 0;
        assert!(fits && b * height * width < ROWS_MAX, "{pixels_bhwc:?}");
        let (name, of) = match pixels_bhwc.kind() {
            Kind::Uint8 => ("stem_patches_of_bytes", Kind::Uint8),
            _ => ("stem_patches", kind),
        };
        assert_dense(pixels_bhwc, of, b * height * width * 3);
        let rows = b * height * width / (SIDE * SIDE);
        let patches = Tensor::f_empty([rows, PATCH], (kind, pixels_bhwc.device()))?;
        let arguments = [
            Argument::Tensor(pixels_bhwc),
            Argument::Tensor(&patches),
            Argument::Index(b),
            Argument::Index(height),
            Argument::Index(width),
        ];
        let grid = [self.blocks_for(ceil(rows * SIDE, THREADS.into())), 1];
        // SAFETY: as `stem_patches` of stem.cu takes them; sizes were asserted or made here.
        unsafe { self.launch_of(name, kind, grid, THREADS, &arguments)? };
        Ok(patches)
    }

    /// The gradient of these rows → that of the pixels, `[b, h, w, 3]`.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn stem_patches_back(
        &self,
        gradient: &Tensor,
        [b, height, width]: [i64; 3],
    ) -> Result<Tensor, TchError> {
        assert_dense(gradient, gradient.kind(), b * height * width / (SIDE * SIDE) * PATCH);
        let like = (gradient.kind(), gradient.device());
        let pixels = Tensor::f_empty([b, height, width, 3], like)?;
        let arguments = [
            Argument::Tensor(gradient),
            Argument::Tensor(&pixels),
            Argument::Index(b),
            Argument::Index(height),
            Argument::Index(width),
        ];
        let grid = [self.blocks_for(ceil(b * height * width, THREADS.into())), 1];
        let kind = gradient.kind();
        // SAFETY: as `stem_patches_back` of stem.cu takes them; sizes were asserted.
        unsafe { self.launch_of("stem_patches_back", kind, grid, THREADS, &arguments)? };
        Ok(pixels)
    }

    /// Adds to `sums_c` the sum over rows of the square of how far `matrix_nc` is from `mean_c`,
    /// both `[c]`, float32.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn square_off(
        &self,
        matrix_nc: &Tensor,
        mean_c: &Tensor,
        sums_c: &Tensor,
    ) -> Result<(), TchError> {
        let (n, c) = matrix_nc.size2()?;
        assert_dense(matrix_nc, matrix_nc.kind(), n * c);
        assert_dense(mean_c, Kind::Float, c);
        let (grid, partials) = self.column_grid(n, c, matrix_nc.device())?;
        let arguments = [
            Argument::Tensor(matrix_nc),
            Argument::Tensor(mean_c),
            Argument::Tensor(&partials),
            Argument::Index(n),
            Argument::Index(c),
            is_wide(c, &[matrix_nc, mean_c]),
        ];
        // SAFETY: as `square_off` of stem.cu takes them.
        unsafe { self.launch_of("square_off", matrix_nc.kind(), grid, THREADS, &arguments)? };
        self.sum_partials(&partials, c, [Some(sums_c), None, None])
    }

    /// Rows, normalised, through GELU, into the rows that the next product takes, `patches`
    /// `[n/4, 4 · c]`, by line, column and channel of patches of 2 × 2.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn normal_gelu(&self, rows: NormalRows, patches: &Tensor) -> Result<(), TchError> {
        let (n, c) = rows.check()?;
        let kind = rows.x_nc.kind();
        assert_dense(patches, kind, n * c);
        let (grid, _) = self.column_grid(n, c, rows.x_nc.device())?;
        let [all, y, x, columns] = rows.shape(n, c);
        let arguments = [
            Argument::Tensor(rows.x_nc),
            Argument::Tensor(rows.vectors_4c),
            Argument::Tensor(patches),
            all,
            y,
            x,
            columns,
            is_wide(c, &[rows.x_nc, rows.vectors_4c, patches]),
        ];
        // SAFETY: as `normal_gelu` of stem.cu takes them; sizes were asserted.
        unsafe { self.launch_of("normal_gelu", kind, grid, THREADS, &arguments) }
    }

    /// Adds to `sums_2c`, float32, the gradients of weight and bias by the one of what
    /// [`Self::normal_gelu`] gave.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn normal_gelu_sums(
        &self,
        rows: NormalRows,
        gradient: &Tensor,
        sums_2c: &Tensor,
    ) -> Result<(), TchError> {
        let (n, c) = rows.check()?;
        let (kind, device) = (rows.x_nc.kind(), rows.x_nc.device());
        assert_dense(gradient, kind, n * c);
        assert_dense(sums_2c, Kind::Float, 2 * c);
        let (grid, _) = self.column_grid(n, c, device)?;
        let partials = Tensor::f_empty([i64::from(grid[1]), 2, c], (Kind::Float, device))?;
        let [all, y, x, columns] = rows.shape(n, c);
        let arguments = [
            Argument::Tensor(rows.x_nc),
            Argument::Tensor(gradient),
            Argument::Tensor(rows.vectors_4c),
            Argument::Tensor(&partials),
            all,
            y,
            x,
            columns,
            is_wide(c, &[rows.x_nc, gradient, rows.vectors_4c]),
        ];
        // SAFETY: as `normal_gelu_sums` of stem.cu takes them; sizes were asserted or made here.
        unsafe { self.launch_of("normal_gelu_sums", kind, grid, THREADS, &arguments)? };
        let [weight_c, bias_c] = [sums_2c.f_get(0)?, sums_2c.f_get(1)?];
        self.sum_partials(&partials, c, [Some(&weight_c), Some(&bias_c), None])
    }

    /// The way back: `x_nc` becomes its own gradient, by the one of what [`Self::normal_gelu`]
    /// gave and the sums of it, `sums_2c`, over all `count` rows that were normalised together.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn normal_gelu_back(
        &self,
        rows: NormalRows,
        gradient: &Tensor,
        sums_2c: &Tensor,
        count: i64,
    ) -> Result<(), TchError> {
        let (n, c) = rows.check()?;
        let kind = rows.x_nc.kind();
        assert_dense(gradient, kind, n * c);
        assert_dense(sums_2c, Kind::Float, 2 * c);
        let (grid, _) = self.column_grid(n, c, rows.x_nc.device())?;
        let [all, y, x, columns] = rows.shape(n, c);
        let arguments = [
            Argument::Tensor(rows.x_nc),
            Argument::Tensor(gradient),
            Argument::Tensor(rows.vectors_4c),
            Argument::Tensor(sums_2c),
            Argument::Float(1.0 / count as f32),
            all,
            y,
            x,
            columns,
            is_wide(c, &[rows.x_nc, gradient, rows.vectors_4c, sums_2c]),
        ];
        // SAFETY: as `normal_gelu_back` of stem.cu takes them; sizes were asserted.
        unsafe { self.launch_of("normal_gelu_back", kind, grid, THREADS, &arguments) }
    }
}
