//! All numbers of a model, in one place.
//!
//! In: what the parts of a model declare, in the order of the reference's state dict. Out: a
//! [`Layout`] that counts without allocating, and [`Weights`]: one flat fp32 tensor of which every
//! parameter and buffer is a view, so that optimiser, clipping, EMA and saving touch one tensor.
//! Never: knows what a parameter is for.
//!
//! The flat tensor is ordered `parameters but vectors | vectors | buffers`, so that with the
//! reference's groups the decayed parameters stand in one piece:
//!
//! ```text
//! flat:  |  matrices …  |  vectors  |  buffers  |
//! grad:  |  matrices …  |  vectors  |
//! ```

use std::cell::Cell;

use tch::{Device, Kind, TchError, Tensor};

/// Each entry starts on a multiple of so many floats: 16 × 4 B = one cache line of 64 B.
const ALIGN_FLOATS: i64 = 16;

/// Where an initial draw is cut, in absolute value, as the reference does.
///
/// The widest draw has std 192^-½ = 0.072, so the cut lies 27 standard deviations away and a plain
/// normal draw, clamped, is the truncated one.
const CUT_ABS: f64 = 2.0;

/// The float next to 1: a uniform draw of exactly ±1 would be an infinite normal one.
const DRAW_MAX: f32 = 1.0 - f32::EPSILON / 2.0;

/// How an entry is first filled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Zeros: biases, running means.
    Zeros,
    /// Ones: weights of norms, running variances.
    Ones,
    /// This number: the raw ends of the augmentation's ranges.
    Constant(f64),
    /// Normal with this standard deviation, cut at ±2.
    Normal {
        /// Standard deviation.
        std: f64,
    },
}

/// What an entry is, by which the optimiser groups it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The weight of a linear layer or convolution.
    Matrix,
    /// Learned tokens and positions: added to or put beside tokens, never multiplied with one.
    Token,
    /// A number without dimension: an end of a range of the augmentation.
    Scalar,
    /// One dimension: biases and the weights of norms.
    Vector,
    /// Not trained: a running statistic.
    Buffer,
}

impl Role {
    /// Which stretch of the flat tensor it stands in.
    fn stretch(self) -> usize {
        match self {
            Self::Matrix | Self::Token | Self::Scalar => 0,
            Self::Vector => 1,
            Self::Buffer => 2,
        }
    }
}

/// Where in the model an entry stands, counted from the images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Augmentation, stem, positions, learned tokens.
    #[default]
    Input,
    /// A block, from 0.
    Block(i64),
    /// The norm at the end of the trunk.
    Norm,
    /// Pooling and classifier: everything that is not the trunk.
    Head,
}

/// Index of an entry in its [`Layout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryId(usize);

impl EntryId {
    /// Where it stands among [`Layout::entries`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// One named tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Name in the state dict.
    pub name: String,
    /// Shape.
    pub shape: Vec<i64>,
    /// First float in the flat tensor.
    pub offset: i64,
    /// What it is.
    pub role: Role,
    /// Where it stands.
    pub part: Part,
    /// How it is first filled.
    pub init: Init,
}

impl Entry {
    /// Number of floats.
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
    }

    /// Floats that it takes in the flat tensor, the padding behind it included.
    pub fn padded_floats(&self) -> i64 {
        padded(self.numel())
    }
}

/// Names, shapes and places of all entries; no memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    entries: Vec<Entry>,
    counters: Vec<String>,
    part: Part,
    trained_floats: i64,
    floats: i64,
}

impl Layout {
    /// What is declared from here on stands in `part`.
    pub fn begin(&mut self, part: Part) {
        self.part = part;
    }

    /// Declares a weight, bias or scalar; its number of dimensions says which.
    pub fn param(&mut self, name: String, shape: &[i64], init: Init) -> EntryId {
        let role = match shape.len() {
            0 => Role::Scalar,
            1 => Role::Vector,
            _ => Role::Matrix,
        };
        self.push(name, shape, init, role)
    }

    /// Declares learned tokens or positions.
    pub fn token(&mut self, name: String, shape: &[i64], init: Init) -> EntryId {
        self.push(name, shape, init, Role::Token)
    }

    /// Declares a running statistic.
    pub fn buffer(&mut self, name: String, shape: &[i64], init: Init) -> EntryId {
        self.push(name, shape, init, Role::Buffer)
    }

    /// Declares a counter of training batches: one whole number in the state dict.
    pub fn counter(&mut self, name: String) {
        self.counters.push(name);
    }

    fn push(&mut self, name: String, shape: &[i64], init: Init, role: Role) -> EntryId {
        assert!(self.floats == 0, "`{name}` is declared before the layout is placed");
        let (shape, part) = (shape.to_vec(), self.part);
        self.entries.push(Entry { name, shape, offset: 0, role, part, init });
        EntryId(self.entries.len() - 1)
    }

    /// Gives every entry its place. After this nothing can be declared.
    pub fn place(mut self) -> Self {
        let mut next = 0;
        for stretch in 0..3 {
            for entry in self.entries.iter_mut().filter(|e| e.role.stretch() == stretch) {
                entry.offset = next;
                next += padded(entry.numel());
            }
            if stretch == 1 {
                self.trained_floats = next;
            }
        }
        self.floats = next;
        self
    }

    /// The entries in the order of the state dict.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Names of the counters of training batches; all hold the same number.
    pub fn counters(&self) -> &[String] {
        &self.counters
    }

    /// Number of trained parameters, padding not counted.
    pub fn num_params(&self) -> i64 {
        self.entries.iter().filter(|e| e.role != Role::Buffer).map(Entry::numel).sum()
    }

    /// Floats of the flat tensor that are trained: length of the flat gradient.
    pub fn trained_floats(&self) -> i64 {
        self.trained_floats
    }

    /// Floats of the flat tensor.
    pub fn floats(&self) -> i64 {
        self.floats
    }
}

/// `floats` and the padding behind them.
fn padded(floats: i64) -> i64 {
    (floats + ALIGN_FLOATS - 1) / ALIGN_FLOATS * ALIGN_FLOATS
}

/// The numbers of one model: parameters and buffers as views of one flat tensor.
#[derive(Debug)]
pub struct Weights {
    layout: Layout,
    flat: Tensor,
    views: Vec<Tensor>,
    narrow: Option<Narrow>,
    batches_tracked: i64,
}

/// The trained weights rounded to bfloat16.
#[derive(Debug)]
struct Narrow {
    flat: Tensor,
    views: Vec<Option<Tensor>>,
    /// The version of the flat tensor that was rounded: libtorch counts what is written to it.
    version: Cell<i64>,
}

impl Weights {
    /// Draws initial weights from `seed` on the CPU, then moves them to `device`: the same numbers
    /// on every device. libtorch's own generator, which is global, is not touched.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn init(layout: &Layout, seed: u64, device: Device) -> Result<Self, TchError> {
        let drawn = Self::zeros(layout, Device::Cpu)?;
        for (at, (entry, view)) in drawn.entries().enumerate() {
            let mut view = view.shallow_clone();
            match entry.init {
                Init::Zeros => {}
                Init::Ones => _ = view.f_fill_(1.0)?,
                Init::Constant(value) => _ = view.f_fill_(value)?,
                Init::Normal { std } => {
                    let uniform = uniform(seed, at as u64, entry.numel() as usize);
                    let mut draws = Tensor::f_from_slice(&uniform)?.f_view_as(&view)?;
                    _ = draws.f_erfinv_()?.f_mul_scalar_(std * std::f64::consts::SQRT_2)?;
                    view.f_copy_(&draws.f_clamp_(-CUT_ABS, CUT_ABS)?)?;
                }
            }
        }
        Self::over(layout, drawn.flat.f_to_device(device)?)
    }

    /// Zeros on `device`, without gradients.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn zeros(layout: &Layout, device: Device) -> Result<Self, TchError> {
        Self::over(layout, Tensor::f_zeros(layout.floats, (Kind::Float, device))?)
    }

    /// A copy that shares nothing and takes no gradients: the start of an EMA.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn f_copy(&self) -> Result<Self, TchError> {
        let mut copy = Self::zeros(&self.layout, self.device())?;
        copy.flat.f_copy_(&self.flat)?;
        copy.batches_tracked = self.batches_tracked;
        Ok(copy)
    }

    fn over(layout: &Layout, flat: Tensor) -> Result<Self, TchError> {
        assert_eq!(flat.size(), [layout.floats], "the flat tensor is as long as its layout");
        let views = layout
            .entries
            .iter()
            .map(|e| flat.f_narrow(0, e.offset, e.numel())?.f_view(&e.shape[..])?.f_detach())
            .collect::<Result<_, _>>()?;
        Ok(Self { layout: layout.clone(), flat, views, narrow: None, batches_tracked: 0 })
    }

    /// Keeps the trained weights rounded to bfloat16 beside them from here on, if they are not yet.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn keep_narrow(&mut self) -> Result<(), TchError> {
        if self.narrow.is_some() {
            return Ok(());
        }
        let size = [self.layout.trained_floats];
        let flat = Tensor::f_zeros(size, (Kind::BFloat16, self.device()))?;
        let view = |entry: &Entry| {
            let view = flat.f_narrow(0, entry.offset, entry.numel())?;
            view.f_view(&entry.shape[..])
        };
        let entries = self.layout.entries.iter();
        let views = entries.map(|e| (e.role != Role::Buffer).then(|| view(e)).transpose());
        let views = views.collect::<Result<_, _>>()?;
        self.narrow = Some(Narrow { flat, views, version: Cell::new(-1) });
        self.refresh_narrow()
    }

    /// Rounds the weights anew, if libtorch has written them since.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub fn refresh_narrow(&self) -> Result<(), TchError> {
        let Some(narrow) = &self.narrow else { return Ok(()) };
        let version = self.flat.f_internal_version()?;
        if narrow.version.replace(version) != version {
            let trained = self.flat.f_detach()?.f_narrow(0, 0, self.layout.trained_floats)?;
            narrow.flat.shallow_clone().f_copy_(&trained)?;
        }
        Ok(())
    }

    /// Says that the rounded weights are those of now: whoever wrote the weights wrote them too.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub fn narrow_is_fresh(&self) -> Result<(), TchError> {
        let Some(narrow) = &self.narrow else { return Ok(()) };
        narrow.version.set(self.flat.f_internal_version()?);
        Ok(())
    }

    /// The trained weights rounded to bfloat16, if they are kept.
    pub fn narrow(&self) -> Option<&Tensor> {
        self.narrow.as_ref().map(|narrow| &narrow.flat)
    }

    /// The entry `id` as numbers of `kind`, without a graph: from where they are kept, if they are.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub fn of_kind(&self, id: EntryId, kind: Kind) -> Result<Tensor, TchError> {
        let kept = self.narrow.as_ref().filter(|_| kind == Kind::BFloat16);
        match kept.and_then(|narrow| narrow.views[id.0].as_ref()) {
            Some(view) => Ok(view.shallow_clone()),
            None => self.get(id).f_detach()?.f_to_kind(kind),
        }
    }

    /// The entry `id`; a leaf that takes gradients if [`Gradient::attach`] was called.
    pub fn get(&self, id: EntryId) -> &Tensor {
        &self.views[id.0]
    }

    /// Names, shapes and places.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Everything: parameters and buffers.
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// The entries with their tensors, in the order of the state dict.
    pub fn entries(&self) -> impl Iterator<Item = (&Entry, &Tensor)> {
        self.layout.entries.iter().zip(&self.views)
    }

    /// Number of training batches that went through the BatchNorms.
    pub fn batches_tracked(&self) -> i64 {
        self.batches_tracked
    }

    /// Sets the number of training batches that went through the BatchNorms.
    pub fn set_batches_tracked(&mut self, batches: i64) {
        self.batches_tracked = batches;
    }

    /// Where the weights lie.
    pub fn device(&self) -> Device {
        self.flat.device()
    }
}

/// Uniform draws in −1…1 (both ends left out) for entry `at`: numbers `2⁻²³ (k + ½) − 1` of a
/// counter through the SplitMix64 finaliser, so any draw can be made without the ones before.
fn uniform(seed: u64, at: u64, count: usize) -> Vec<f32> {
    let start = mix(mix(seed).wrapping_add(at));
    (0..count as u64)
        .map(|i| (mix(start.wrapping_add(i)) >> 40) as f64)
        .map(|k| ((k + 0.5) / f64::from(1 << 23) - 1.0) as f32)
        .map(|draw| draw.clamp(-DRAW_MAX, DRAW_MAX))
        .collect()
}

/// The finaliser of SplitMix64 over a golden-ratio counter.
fn mix(counter: u64) -> u64 {
    let z = counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The gradients of all parameters as one flat tensor.
///
/// The gradient of each leaf is a view of it: a backward pass adds into it, and clipping and the
/// optimiser read it whole.
#[derive(Debug)]
pub struct Gradient {
    flat: Tensor,
}

impl Gradient {
    /// Makes the parameters of `weights` leaves whose gradients are views of one flat tensor.
    ///
    /// # Errors
    ///
    /// What libtorch says, such as out of memory.
    pub fn attach(weights: &Weights) -> Result<Self, TchError> {
        let layout = &weights.layout;
        let flat = Tensor::f_zeros(layout.trained_floats, (Kind::Float, weights.device()))?;
        for (entry, leaf) in weights.entries().filter(|(e, _)| e.role != Role::Buffer) {
            let leaf = leaf.f_set_requires_grad(true)?;
            // tch cannot set a gradient, but it can give an existing one other storage.
            leaf.f_sum(Kind::Float)?.f_backward()?;
            let view = flat.f_narrow(0, entry.offset, entry.numel())?.f_view(&entry.shape[..])?;
            leaf.f_grad()?.f_set_data(&view)?;
        }
        Ok(Self { flat })
    }

    /// The flat gradient: the trained part of [`Weights::flat`].
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Sets it to zero, before a step's first backward pass.
    ///
    /// # Errors
    ///
    /// What libtorch says.
    pub fn zero(&self) -> Result<(), TchError> {
        self.flat.shallow_clone().f_zero_().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> (Layout, EntryId, EntryId) {
        let mut layout = Layout::default();
        let bias = layout.param("bias".into(), &[3], Init::Zeros);
        let weight = layout.param("weight".into(), &[2, 5], Init::Normal { std: 0.02 });
        layout.buffer("running_var".into(), &[4], Init::Ones);
        (layout.place(), bias, weight)
    }

    #[test]
    fn vectors_come_behind_matrices_and_buffers_last() {
        let (layout, ..) = small();
        let offsets: Vec<_> = layout.entries().iter().map(|e| e.offset).collect();
        assert_eq!(offsets, [16, 0, 32]);
        assert_eq!((layout.trained_floats(), layout.floats()), (32, 48));
        assert_eq!(layout.num_params(), 13);
    }

    #[test]
    fn a_view_and_the_flat_tensor_are_the_same_numbers() {
        let (layout, bias, _) = small();
        let weights = Weights::init(&layout, 1, Device::Cpu).unwrap();
        _ = weights.flat().narrow(0, 16, 3).fill_(7.0);
        assert_eq!(Vec::<f32>::try_from(weights.get(bias)).unwrap(), [7.0, 7.0, 7.0]);
    }

    #[test]
    fn a_backward_pass_fills_the_flat_gradient_and_adds_into_it() {
        let (layout, _, weight) = small();
        let weights = Weights::init(&layout, 1, Device::Cpu).unwrap();
        let gradient = Gradient::attach(&weights).unwrap();
        (weights.get(weight) * 3.0).sum(Kind::Float).backward();
        (weights.get(weight) * 4.0).sum(Kind::Float).backward();
        let flat = Vec::<f32>::try_from(gradient.flat()).unwrap();
        assert_eq!(flat[..10], [7.0; 10]);
        assert_eq!(flat[10..], [0.0; 22]);
        gradient.zero().unwrap();
        assert_eq!(gradient.flat().abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn draws_are_normal_with_the_declared_deviation() {
        let mut layout = Layout::default();
        let id = layout.param("weight".into(), &[300, 1000], Init::Normal { std: 0.02 });
        let weights = Weights::init(&layout.place(), 7, Device::Cpu).unwrap();
        let drawn = weights.get(id).to_kind(Kind::Double);
        assert!(drawn.mean(Kind::Double).double_value(&[]).abs() < 2e-4);
        assert!((drawn.std(true).double_value(&[]) - 0.02).abs() < 1e-4);
        let beyond = drawn.abs().gt(0.04).to_kind(Kind::Double).mean(Kind::Double);
        assert!((beyond.double_value(&[]) - 0.0455).abs() < 1.5e-3);
    }

    #[test]
    fn a_seed_names_the_weights() {
        let (layout, _, weight) = small();
        let draw = |seed| {
            let weights = Weights::init(&layout, seed, Device::Cpu).unwrap();
            Vec::<f32>::try_from(weights.get(weight).flatten(0, -1)).unwrap()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
