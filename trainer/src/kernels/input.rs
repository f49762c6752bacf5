//! Pixels to patches, patches to tokens, and the way back.
//!
//! b images, h w pixels, p side of a patch, g patches of an image, t tokens, d width.

use tch::{Kind, TchError, Tensor};

use super::columns::ROWS_MAX;
use super::{Argument, EIGHT, Kernels, THREADS, assert_dense, ceil, is_wide};

/// How the tokens of an image are put together.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Tokens before those of the grid.
    pub num_prefix: i64,
    /// Tokens of the grid.
    pub num_grid: i64,
    /// Width of a token.
    pub width: i64,
}

impl Grid {
    fn tokens(&self) -> i64 {
        self.num_prefix + self.num_grid
    }
}

impl Kernels {
    /// Bytes `[b, h, w, 3]` → patches 0…1 of `kind`, `[b · g, 3 · p · p]`, by colour, line and
    /// column, as a linear stem's weight has them.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn patchify(&self, pixels_bhwc: &Tensor, p: i64, kind: Kind) -> Result<Tensor, TchError> {
        let (b, height, width, channels) = pixels_bhwc.size4()?;
        assert!(channels == 3 && height % p == 0 && width % p == 0, "{pixels_bhwc:?}, patch {p}");
        assert_dense(pixels_bhwc, Kind::Uint8, b * height * width * 3);
        let rows = b * (height / p) * (width / p);
        let patches = Tensor::f_empty([rows, 3 * p * p], (kind, pixels_bhwc.device()))?;
        let pieces = rows * p * ceil(p, EIGHT);
        assert!(pieces < ROWS_MAX, "{pieces} pieces of patches");
        let arguments = [
            Argument::Tensor(pixels_bhwc),
            Argument::Tensor(&patches),
            Argument::Index(b),
            Argument::Index(height),
            Argument::Index(width),
            Argument::Index(p),
        ];
        let grid = [self.blocks_for(ceil(pieces, THREADS.into())), 1];
        // SAFETY: as `patchify` of tokens.cu takes them. What libtorch allocates starts on more
        // than 16 bytes, and a line of p numbers too where p is a multiple of eight.
        unsafe { self.launch_of("patchify", kind, grid, THREADS, &arguments)? };
        Ok(patches)
    }

    /// Rows of the grid `[b · g, d]`, positions `[g, d]` and prefix `[…, d]`, float32 → tokens
    /// `[b, t, d]`, float32.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn tokens(
        &self,
        grid_nd: &Tensor,
        positions_gd: &Tensor,
        prefix_pd: &Tensor,
        shape: Grid,
    ) -> Result<Tensor, TchError> {
        let (kind, d, t) = (grid_nd.kind(), shape.width, shape.tokens());
        let b = grid_nd.numel() as i64 / (shape.num_grid * d);
        assert_dense(grid_nd, kind, b * shape.num_grid * d);
        assert_dense(positions_gd, Kind::Float, shape.num_grid * d);
        assert_dense(prefix_pd, Kind::Float, shape.num_prefix * d);
        let pieces = b * t * ceil(d, EIGHT);
        assert!(pieces < ROWS_MAX, "{pieces} pieces of tokens");
        let out_btd = Tensor::f_empty([b, t, d], (Kind::Float, grid_nd.device()))?;
        let arguments = [
            Argument::Tensor(grid_nd),
            Argument::Tensor(positions_gd),
            Argument::Tensor(prefix_pd),
            Argument::Tensor(&out_btd),
            Argument::Index(b),
            Argument::Index(t),
            Argument::Index(shape.num_prefix),
            Argument::Index(d),
            is_wide(d, &[grid_nd, positions_gd, prefix_pd]),
        ];
        let blocks = [self.blocks_for(ceil(pieces, THREADS.into())), 1];
        // SAFETY: as `tokens` of tokens.cu takes them; sizes were asserted.
        unsafe { self.launch_of("tokens", kind, blocks, THREADS, &arguments)? };
        Ok(out_btd)
    }

    /// The way back: the gradient of the grid's rows, of `kind`, and the sum over images of the
    /// gradient of each token, `[t, d]`, float32.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn tokens_back(
        &self,
        gradient_btd: &Tensor,
        num_prefix: i64,
        kind: Kind,
    ) -> Result<(Tensor, Tensor), TchError> {
        let (b, t, d) = gradient_btd.size3()?;
        assert_dense(gradient_btd, Kind::Float, b * t * d);
        let like = (Kind::Float, gradient_btd.device());
        let of_grid_nd = Tensor::f_empty([b * (t - num_prefix), d], (kind, like.1))?;
        let sums_td = Tensor::f_zeros([t, d], like)?;
        let (grid, partials) = self.column_grid(b, t * d, like.1)?;
        let arguments = [
            Argument::Tensor(gradient_btd),
            Argument::Tensor(&of_grid_nd),
            Argument::Tensor(&partials),
            Argument::Index(b),
            Argument::Index(t),
            Argument::Index(num_prefix),
            Argument::Index(d),
            is_wide(d, &[gradient_btd]),
        ];
        // SAFETY: as `tokens_back` of tokens.cu takes them.
        unsafe { self.launch_of("tokens_back", kind, grid, THREADS, &arguments)? };
        self.sum_partials(&partials, t * d, [Some(&sums_td), None, None])?;
        Ok((of_grid_nd, sums_td))
    }
}
