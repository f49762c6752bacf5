//! RangeAugment: images mixed with noise and a shade, and the gradient of what they are mixed by.
//!
//! b images, h w pixels.

use tch::{Kind, TchError, Tensor};

use super::{Argument, Kernels, assert_dense};

/// Threads of a block, which has an image.
const IMAGE_THREADS: u32 = 512;
/// What an image is mixed by: the share of the image, that of the noise, a shade of each colour.
const MIX: i64 = 5;

/// Images, and where their noise comes from.
#[derive(Clone, Copy, Debug)]
pub struct NoisyImages<'t> {
    /// Bytes, or float32 in 0…1, `[b, h, w, 3]`.
    pub pixels_bhwc: &'t Tensor,
    /// Of each image the seed of its noise and what it needs, `[b, 2]`, int64.
    pub seeds_and_needs_b2: &'t Tensor,
}

impl NoisyImages<'_> {
    /// Number of images, and of the pixels of one.
    fn check(&self) -> Result<(i64, i64), TchError> {
        let (b, height, width, colours) = self.pixels_bhwc.size4()?;
        assert!(colours == 3, "{self:?}");
        let kind = if self.is_bytes() { Kind::Uint8 } else { Kind::Float };
        assert_dense(self.pixels_bhwc, kind, b * height * width * 3);
        assert_dense(self.seeds_and_needs_b2, Kind::Int64, 2 * b);
        Ok((b, height * width))
    }

    fn is_bytes(&self) -> bool {
        self.pixels_bhwc.kind() == Kind::Uint8
    }

    /// The first part of a kernel's name.
    fn named(&self, kernel: &str) -> String {
        format!("{kernel}_of_{}", if self.is_bytes() { "bytes" } else { "floats" })
    }

    fn arguments(&self) -> [Argument<'_>; 2] {
        [self.pixels_bhwc, self.seeds_and_needs_b2].map(Argument::Tensor)
    }
}

impl Kernels {
    /// Sums over the pixels of each image, and over its noise, by colour, `[b, 2, 3]`; 0 where
    /// nobody needs them.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn range_sums(&self, images: NoisyImages) -> Result<Tensor, TchError> {
        let (b, pixels) = images.check()?;
        let sums = Tensor::f_empty([b, 2, 3], (Kind::Float, images.pixels_bhwc.device()))?;
        let [own, seeds] = images.arguments();
        let rest = [Argument::Tensor(&sums), Argument::Index(b), Argument::Index(pixels)];
        let arguments = [&[own, seeds][..], &rest].concat();
        let grid = [self.blocks_for(b), 1];
        // SAFETY: as `range_sums` of augment.cu takes them; sizes were asserted or made here.
        unsafe { self.launch(&images.named("range_sums"), grid, IMAGE_THREADS, &arguments)? };
        Ok(sums)
    }

    /// Images mixed by `mixes_b5` and held in 0…1, of `kind`, `[b, h, w, 3]`; and the sum of the
    /// squares of how far each is from what it was, `[b]`.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn range_mix(
        &self,
        images: NoisyImages,
        mixes_b5: &Tensor,
        kind: Kind,
    ) -> Result<(Tensor, Tensor), TchError> {
        let (b, pixels) = images.check()?;
        assert_dense(mixes_b5, Kind::Float, b * MIX);
        let device = images.pixels_bhwc.device();
        let mixed = Tensor::f_empty(images.pixels_bhwc.size(), (kind, device))?;
        let squares_b = Tensor::f_empty([b], (Kind::Float, device))?;
        let [own, seeds] = images.arguments();
        let [mixes, out, squares] = [mixes_b5, &mixed, &squares_b].map(Argument::Tensor);
        let [b, pixels] = [b, pixels].map(Argument::Index);
        let arguments = [own, seeds, mixes, out, squares, b, pixels];
        let (name, grid) = (images.named("range_mix"), [self.blocks_for(mixed.size()[0]), 1]);
        // SAFETY: as `range_mix` of augment.cu takes them; sizes were asserted or made here.
        unsafe { self.launch_of(&name, kind, grid, IMAGE_THREADS, &arguments)? };
        Ok((mixed, squares_b))
    }

    /// Gradient of the mixed images, and by how much of how far each is from what it was that grows
    /// → gradient of `mixes_b5`.
    ///
    /// # Errors
    ///
    /// What libtorch or the driver says.
    pub fn range_back(
        &self,
        gradient_bhwc: &Tensor,
        images: NoisyImages,
        mixes_b5: &Tensor,
        pulls_b: &Tensor,
    ) -> Result<Tensor, TchError> {
        let (b, pixels) = images.check()?;
        let kind = gradient_bhwc.kind();
        assert_dense(gradient_bhwc, kind, b * pixels * 3);
        assert_dense(mixes_b5, Kind::Float, b * MIX);
        assert_dense(pulls_b, Kind::Float, b);
        let of_mixes_b5 = mixes_b5.f_empty_like()?;
        let [own, seeds] = images.arguments();
        let [gradient, mixes, pulls, out] =
            [gradient_bhwc, mixes_b5, pulls_b, &of_mixes_b5].map(Argument::Tensor);
        let [count, pixels] = [b, pixels].map(Argument::Index);
        let arguments = [gradient, own, seeds, mixes, pulls, out, count, pixels];
        let (name, grid) = (images.named("range_back"), [self.blocks_for(b), 1]);
        // SAFETY: as `range_back` of augment.cu takes them; sizes were asserted or made here.
        unsafe { self.launch_of(&name, kind, grid, IMAGE_THREADS, &arguments)? };
        Ok(of_mixes_b5)
    }
}
