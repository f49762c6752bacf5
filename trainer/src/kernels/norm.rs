//! LayerNorm with the addition before it, GELU, and their ways back.
//!
//! n rows, d width, f width of the hidden layer.

use tch::{Kind, TchError, Tensor};

use super::{Argument, EIGHT, Kernels, THREADS, WIDE_BYTES, assert_dense, ceil, is_known, is_wide};

/// Threads of a block at most, as in norm.cu.
const THREADS_MAX: i64 = 640;
/// Threads that run in step.
const WARP: i64 = 32;

/// Weight and bias of a norm, or where their gradients are.
#[derive(Clone, Copy, Debug)]
pub struct NormIds<'t> {
    /// `[d]`, float32.
    pub weight: &'t Tensor,
    /// `[d]`, float32.
    pub bias: &'t Tensor,
}

/// What a norm gave and what its way back needs.
#[derive(Debug)]
pub struct Normed {
    /// What was added up, `[n, d]`, float32; none if nothing was added.
    pub total_nd: Option<Tensor>,
    /// The normalised rows, `[n, d]`.
    pub normed_nd: Tensor,
    /// The mean of each row, `[n]`, float32.
    pub mean_n: Tensor,
    /// 1 ÷ the deviation of each row, `[n]`, float32.
    pub rstd_n: Tensor,
}

/// What the way back of a norm takes.
#[derive(Clone, Copy, Debug)]
pub struct NormBack<'t> {
    /// What was normalised, `[n, d]`, float32.
    pub x_nd: &'t Tensor,
    /// Mean and 1 ÷ deviation of its rows.
    pub statistics_n: [&'t Tensor; 2],
    /// The norm.
    pub norm: NormIds<'t>,
    /// Where the gradients of the norm are added.
    pub of_norm: NormIds<'t>,
    /// Where the sum over rows of the rounded stream is added, if it is the gradient of a bias.
    pub of_bias: Option<&'t Tensor>,
}

impl Kernels {
    /// Whether norms over `width` numbers of `kind` can be passed.
    pub fn takes(&self, width: i64, kind: Kind) -> bool {
        is_known(kind) && width <= THREADS_MAX * EIGHT
    }

    /// Adds `added_nd`, of `kind`, to the float32 rows `x_nd` and normalises them; rows may lie
    /// apart.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn add_norm(
        &self,
        x_nd: &Tensor,
        added_nd: Option<&Tensor>,
        norm: NormIds,
        eps: f64,
        kind: Kind,
    ) -> Result<Normed, TchError> {
        let (n, d) = x_nd.size2()?;
        let strides = x_nd.stride();
        assert!(strides[1] == 1 && x_nd.kind() == Kind::Float, "rows of float32, not {x_nd:?}");
        assert!(self.takes(d, kind), "{d} columns of {kind:?}");
        let device = x_nd.device();
        let normed_nd = Tensor::f_empty([n, d], (kind, device))?;
        let total_nd = match added_nd {
            Some(added_nd) => {
                assert_dense(added_nd, kind, n * d);
                Some(Tensor::f_empty([n, d], (Kind::Float, device))?)
            }
            None => None,
        };
        let statistic = || Tensor::f_empty([n], (Kind::Float, device));
        let (mean_n, rstd_n) = (statistic()?, statistic()?);
        for vector in [norm.weight, norm.bias] {
            assert_dense(vector, Kind::Float, d);
        }
        let touched = [Some(x_nd), added_nd, Some(norm.weight), Some(norm.bias)];
        let touched: Vec<&Tensor> = touched.into_iter().flatten().collect();
        let strides_fit = strides[0] % (WIDE_BYTES as i64 / 4) == 0;
        let wide = if strides_fit { is_wide(d, &touched) } else { Argument::Index(0) };
        let arguments = [
            Argument::Tensor(x_nd),
            Argument::Index(strides[0]),
            Argument::maybe(added_nd),
            Argument::maybe(total_nd.as_ref()),
            Argument::Tensor(&normed_nd),
            Argument::Tensor(&mean_n),
            Argument::Tensor(&rstd_n),
            Argument::Tensor(norm.weight),
            Argument::Tensor(norm.bias),
            Argument::Index(n),
            Argument::Index(d),
            Argument::Float(eps as f32),
            wide,
        ];
        let grid = [self.blocks_for(n), 1];
        // SAFETY: as `add_norm` of norm.cu takes them; sizes were asserted or made here.
        unsafe { self.launch_of("add_norm", kind, grid, threads_of_row(d), &arguments)? };
        Ok(Normed { total_nd, normed_nd, mean_n, rstd_n })
    }

    /// The way back. `gradient_nd`, that of the normalised rows, becomes these rows once more. The
    /// stream's gradient `stream_nd`, float32, gets that of the norm added; given is the same of
    /// the gradient's kind.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn norm_back(
        &self,
        gradient_nd: &Tensor,
        stream_nd: &Tensor,
        back: NormBack,
    ) -> Result<Tensor, TchError> {
        let (n, d) = gradient_nd.size2()?;
        let (kind, device) = (gradient_nd.kind(), gradient_nd.device());
        assert!(self.takes(d, kind), "{d} columns of {kind:?}");
        assert_dense(gradient_nd, kind, n * d);
        let NormBack { x_nd, statistics_n: [mean_n, rstd_n], norm, of_norm, of_bias } = back;
        for rows in [x_nd, stream_nd] {
            assert_dense(rows, Kind::Float, n * d);
        }
        for statistic in [mean_n, rstd_n] {
            assert_dense(statistic, Kind::Float, n);
        }
        for vector in [norm.weight, norm.bias] {
            assert_dense(vector, Kind::Float, d);
        }
        let narrow_nd = Tensor::f_empty([n, d], (kind, device))?;
        let blocks = self.blocks_for(n);
        let partials = Tensor::f_empty([i64::from(blocks), 3, d], (Kind::Float, device))?;
        let arguments = [
            Argument::Tensor(gradient_nd),
            Argument::Tensor(x_nd),
            Argument::Tensor(mean_n),
            Argument::Tensor(rstd_n),
            Argument::Tensor(norm.weight),
            Argument::Tensor(norm.bias),
            Argument::Tensor(stream_nd),
            Argument::Tensor(&narrow_nd),
            Argument::Tensor(&partials),
            Argument::Index(n),
            Argument::Index(d),
            is_wide(d, &[gradient_nd, x_nd, stream_nd, norm.weight, norm.bias]),
        ];
        // SAFETY: as `norm_back` of norm.cu takes them; sizes were asserted or made here.
        unsafe {
            self.launch_of("norm_back", kind, [blocks, 1], threads_of_row(d), &arguments)?;
        }
        self.sum_partials(&partials, d, [Some(of_norm.weight), Some(of_norm.bias), of_bias])?;
        Ok(narrow_nd)
    }

    /// GELU of `hidden`, of its kind and shape.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn gelu(&self, hidden: &Tensor) -> Result<Tensor, TchError> {
        let numbers = hidden.numel() as i64;
        assert_dense(hidden, hidden.kind(), numbers);
        let active = hidden.f_empty_like()?;
        let arguments = [
            Argument::Tensor(hidden),
            Argument::Tensor(&active),
            Argument::Index(numbers),
            // The last few of them are taken one by one.
            is_wide(EIGHT, &[hidden]),
        ];
        let grid = [self.blocks_for_numbers(numbers), 1];
        // SAFETY: as `gelu` of gelu.cu takes them.
        unsafe { self.launch_of("gelu", hidden.kind(), grid, THREADS, &arguments)? };
        Ok(active)
    }

    /// The way back in place: `hidden_nf` becomes what GELU gives of it, and `gradient_nf` of that
    /// the one of `hidden_nf`, whose sum over rows is added to `of_bias`.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn gelu_back(
        &self,
        hidden_nf: &Tensor,
        gradient_nf: &Tensor,
        of_bias: &Tensor,
    ) -> Result<(), TchError> {
        let (n, f) = hidden_nf.size2()?;
        let kind = hidden_nf.kind();
        for matrix in [hidden_nf, gradient_nf] {
            assert_dense(matrix, kind, n * f);
        }
        let (grid, partials) = self.column_grid(n, f, hidden_nf.device())?;
        let arguments = [
            Argument::Tensor(hidden_nf),
            Argument::Tensor(gradient_nf),
            Argument::Tensor(&partials),
            Argument::Index(n),
            Argument::Index(f),
            is_wide(f, &[hidden_nf, gradient_nf]),
        ];
        // SAFETY: as `gelu_back` of gelu.cu takes them.
        unsafe { self.launch_of("gelu_back", kind, grid, THREADS, &arguments)? };
        self.sum_partials(&partials, f, [Some(of_bias), None, None])
    }
}

/// Threads that share a row of `width` numbers, in whole warps.
fn threads_of_row(width: i64) -> u32 {
    (ceil(ceil(width, EIGHT), WARP) * WARP) as u32
}
