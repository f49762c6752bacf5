//! Our models against PyTorch, timm and Hugging Face, and files that want to do harm.

use std::io::Write;
use std::path::Path;

use catlip_pipeline::prep::Stores;
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use zip::write::{FileOptions, ZipWriter};

use super::names::{self, Names};
use super::state::State;
use super::*;
use crate::batch::{DeviceBatch, Place};
use crate::loss::{Loss, SparseTargets};
use crate::model::{Pass, Pool, StemKind, Vit, VitPlan, Weights};
use crate::optim::AdamWPlan;
use crate::state::TrainState;
use crate::step::{StepPlan, step};
use crate::tensor_file;
use catlip_schemas::Cursor;

/// What PyTorch gives; made by `golden/make_models.py`.
fn golden() -> Value {
    serde_json::from_str(include_str!("../../golden/models.json")).unwrap()
}

/// The numbers of the golden file for a name: SplitMix64's finaliser over FNV-1a.
fn unit(name: &str, numel: i64) -> impl Iterator<Item = f64> {
    let hash = |seed: u64, byte: u8| (seed ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    (0..numel as u64).map(move |i| {
        let z = seed.wrapping_add(i);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f64 / f64::from(1 << 23) - 1.0
    })
}

fn number(name: &str, shape: &[i64], unit: f64) -> f64 {
    let layer = name.rsplit('.').nth(1).unwrap_or_default();
    let is_scale = name.ends_with("weight") && (layer.contains("norm") || layer == "0");
    match shape.len() {
        _ if name.ends_with("running_var") => 1.0 + 0.5 * unit,
        0 | 1 => f64::from(is_scale) + 0.2 * unit,
        _ => unit * (3.0 / shape[1..].iter().product::<i64>() as f64).sqrt(),
    }
}

fn filled(vit: &Vit) -> Weights {
    let weights = Weights::zeros(vit.layout(), Device::Cpu).unwrap();
    for (entry, view) in weights.entries() {
        let units = unit(&entry.name, entry.numel());
        let values: Vec<f32> =
            units.map(|unit| number(&entry.name, &entry.shape, unit) as f32).collect();
        view.shallow_clone().copy_(&Tensor::from_slice(&values).view_as(view));
    }
    weights
}

fn images(height: i64, width: i64) -> Tensor {
    let values: Vec<f32> =
        (0..2 * 3 * height * width).map(|i| (0.5 + 0.5 * (0.37 * i as f64).sin()) as f32).collect();
    Tensor::from_slice(&values).view([2, 3, height, width])
}

fn assert_logits(plan: VitPlan, expected: &Value) {
    let vit = Vit::new(plan);
    let weights = filled(&vit);
    for (size, expected) in expected.as_object().unwrap() {
        let (height, width) = size.split_once('x').unwrap();
        let images = images(height.parse().unwrap(), width.parse().unwrap());
        let expected: Vec<Vec<f64>> = serde_json::from_value(expected.clone()).unwrap();
        let found = tch::no_grad(|| vit.forward(&weights, &images, Pass::EVAL)).unwrap();
        let off = (found.to_kind(Kind::Double) - Tensor::from_slice2(&expected)).abs().max();
        let off = off.double_value(&[]);
        assert!(off < 1e-4, "{plan:?} at {size}: off by {off}");
    }
}

#[test]
fn logits_of_the_reference_are_ours_at_224_160_and_320_px() {
    for case in golden()["corenet"].as_array().unwrap() {
        let shape: [i64; 3] = serde_json::from_value(case["shape"].clone()).unwrap();
        let labels = case["labels"].as_i64().unwrap();
        assert_logits(VitPlan::corenet(shape, 196, labels), &case["logits"]);
    }
}

/// The golden models of timm, by name.
fn linear(case: &str) -> VitPlan {
    let plain =
        VitPlan { stem: StemKind::Linear, patch_px: 8, ..VitPlan::corenet([64, 2, 2], 16, 10) };
    match case {
        "summary" => plain,
        "mean" => VitPlan { pool: Pool::Mean, summary: false, ..plain },
        "attention" => VitPlan { pool: Pool::Attention, summary: false, ..plain },
        "registers" => {
            VitPlan { num_registers: 3, qk_norm: true, gated: true, hidden: 176, ..plain }
        }
        other => panic!("no model is called {other}"),
    }
}

#[test]
fn logits_of_timm_are_ours_at_the_size_of_the_positions_and_at_others() {
    for (case, golden) in golden()["linear"].as_object().unwrap() {
        assert_logits(linear(case), &golden["logits"]);
    }
}

fn shapes(tensors: &[(String, Tensor)]) -> Value {
    tensors.iter().map(|(name, t)| (name.clone(), serde_json::json!(t.size()))).collect()
}

#[test]
fn names_and_shapes_are_those_of_timm_and_hugging_face() {
    for (case, golden) in golden()["linear"].as_object().unwrap() {
        let plan = linear(case);
        let state = tensor_file::named(&filled(&Vit::new(plan))).unwrap();
        let timm = names::theirs(&plan, &state, Names::Timm).unwrap();
        assert_eq!(shapes(&timm), golden["timm"], "{case}");
        if case == "summary" {
            let hf = names::theirs(&plan, &state, Names::HuggingFace).unwrap();
            assert_eq!(shapes(&hf), golden["hf"]);
        } else {
            assert!(names::theirs(&plan, &state, Names::HuggingFace).is_err());
        }
    }
}

/// The model in `folder` as `target` gets it, read back.
fn round_trip(plan: VitPlan, target: export::Target) -> (Weights, ModelFolder, VitPlan) {
    let dir = tempfile::tempdir().unwrap();
    let vit = Vit::new(plan);
    let weights = filled(&vit);
    let original = filled(&vit);
    let model = ModelFolder { vit, weights, vocab: None, image_px: 224, crop_share: 1.0 };
    export::export(&model, target, &dir.path().join("theirs")).unwrap();
    let file = dir.path().join("theirs/model.safetensors");
    let back = import::import(&file, "auto", None, None).unwrap();
    let again = dir.path().join("ours");
    back.write(&again).unwrap();
    let found = ModelFolder::open(&again, &Stores::default()).unwrap();
    let plan = *found.vit.plan();
    (original, found, plan)
}

#[test]
fn a_model_that_goes_out_and_comes_back_is_the_same_to_the_bit() {
    use export::Target::{HuggingFace, Timm};
    let corenet = VitPlan::corenet([64, 2, 1], 16, 10);
    let wide = |case| VitPlan { width: 128, hidden: 512, ..linear(case) };
    let registers = VitPlan { width: 128, ..linear("registers") };
    for (plan, target) in [
        (corenet, Timm),
        (corenet, HuggingFace),
        (wide("summary"), Timm),
        (wide("summary"), HuggingFace),
        (wide("mean"), Timm),
        (wide("attention"), Timm),
        (registers, Timm),
    ] {
        let (original, found, back) = round_trip(plan, target);
        assert_eq!(back, plan, "{target:?}");
        assert!(original.flat().equal(found.weights.flat()), "{plan:?} {target:?}");
    }
}

#[test]
fn torch_save_is_read_with_its_kinds_strides_and_wrappers() {
    let bytes = include_bytes!("../../golden/state.pt");
    let tensors = torch_file::read(Path::new("state.pt"), bytes).unwrap();
    let base = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([4, 6]) / 8.0;
    for (name, kind, expected) in [
        ("weight", Kind::Float, base.shallow_clone()),
        ("f16", Kind::Half, base.shallow_clone()),
        ("bf16", Kind::BFloat16, base.shallow_clone()),
        ("f64", Kind::Double, base.shallow_clone()),
        ("transposed", Kind::Float, base.tr()),
        ("row", Kind::Float, base.get(1)),
        ("parameter", Kind::Float, base.narrow(0, 0, 2)),
    ] {
        assert_eq!(tensors[name].kind(), kind, "{name}");
        assert!(tensors[name].to_kind(Kind::Float).equal(&expected), "{name}");
    }
    assert_eq!(tensors["count"].int64_value(&[]), 7);
    assert_eq!(tensors.len(), 8);
}

/// A file of PyTorch with this pickle and one storage of these bytes.
fn file(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = FileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [("a/data.pkl", pickle), ("a/data/0", storage)] {
        zip.start_file(name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// `{"w": a float tensor}` over storage 0 of `numel` numbers, from `offset`, of one dimension.
fn tensor_pickle(numel: u8, offset: u8, size: u8, stride: u8) -> Vec<u8> {
    let mut pickle = b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((".to_vec();
    pickle.extend(b"X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK");
    pickle.extend([numel]);
    pickle.extend(b"tQK");
    pickle.extend([offset, b'K', size, 0x85, b'K', stride, 0x85]);
    pickle.extend(b"\x89ccollections\nOrderedDict\n)RtRs.");
    pickle
}

fn refusal(bytes: &[u8]) -> String {
    match torch_file::read(Path::new("x.pt"), bytes) {
        Ok(tensors) => panic!("read {tensors:?}"),
        Err(error) => {
            let source = std::error::Error::source(&error);
            format!("{error}{}", source.map_or(String::new(), |s| format!(": {s}")))
        }
    }
}

#[test]
fn a_small_file_made_by_hand_is_read() {
    let bytes: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let tensors = torch_file::read(Path::new("x.pt"), &file(&tensor_pickle(4, 1, 2, 2), &bytes));
    assert_eq!(Vec::<f32>::try_from(&tensors.unwrap()["w"]).unwrap(), [2.0, 4.0]);
}

#[test]
fn code_in_a_pickle_is_refused_by_its_name() {
    let pickle = b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.";
    assert_eq!(
        refusal(&file(pickle, b"")),
        "x.pt: its pickle is refused: opcode GLOBAL at byte 2: it names `os.system`, which is \
         none of those that may stand here; nothing is imported"
    );
    let stack = b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.";
    assert!(refusal(&file(stack, b"")).contains("`builtins.eval`"));
}

#[test]
fn a_tensor_that_leaves_its_storage_is_refused() {
    let bytes = [0; 16];
    for (offset, size, stride) in [(0, 5, 1), (3, 2, 1), (0, 2, 4), (255, 1, 1), (0, 9, 0)] {
        let error = refusal(&file(&tensor_pickle(4, offset, size, stride), &bytes));
        assert!(error.contains("leaves its storage of 4 numbers"), "{error}");
    }
    let error = refusal(&file(&tensor_pickle(200, 0, 1, 1), &bytes));
    assert!(error.contains("`data/0`: 16 bytes, expected 800"), "{error}");
}

#[test]
fn a_damaged_zip_is_refused_wherever_a_bit_is_flipped() {
    let bytes: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let whole = file(&tensor_pickle(4, 0, 4, 1), &bytes);
    let read = |bytes: &[u8]| {
        torch_file::read(Path::new("x.pt"), bytes).map(|t| {
            t.into_iter().map(|(n, t)| (n, Vec::<f32>::try_from(t).unwrap())).collect::<Vec<_>>()
        })
    };
    let expected = read(&whole).unwrap();
    let mut unchanged = 0;
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        // Times, versions and the like carry nothing.
        match read(&damaged) {
            Ok(found) if found == expected => unchanged += 1,
            Ok(found) => panic!("a flip at {at} gave {found:?}"),
            Err(_) => {}
        }
        _ = read(&whole[..at]).unwrap_err();
    }
    assert!(unchanged < whole.len() / 2, "{unchanged} of {}", whole.len());
}

#[test]
fn a_file_of_another_model_is_refused_with_both() {
    let dir = tempfile::tempdir().unwrap();
    let vit = Vit::new(VitPlan::corenet([64, 2, 1], 16, 10));
    let path = dir.path().join("w.safetensors");
    let mut tensors = tensor_file::named(&filled(&vit)).unwrap();
    tensor_file::write(&path, &tensors).unwrap();
    let error = |path: &Path, model| import::import(path, model, Some(1), None).unwrap_err();
    let text = |error: &dyn std::error::Error| error.source().unwrap().to_string();
    assert!(
        text(&error(&path, "vit_b16"))
            .ends_with("is 2 blocks of width 64, expected 12 blocks of width 768, as vit_b16 has")
    );
    let unsaid = import::import(&path, "auto", None, None).unwrap_err();
    assert_eq!(unsaid.hint(), Some("say how many: --set model.heads=N"));
    assert!(text(&unsaid).ends_with("how many attention heads its 2 blocks of width 64 have"));
    assert!(text(&error(&path, "vit_x16")).starts_with("model is `vit_x16`, expected `auto`"));
    tensors.retain(|(name, _)| name != "classifier.bias");
    let path = dir.path().join("missing.safetensors");
    tensor_file::write(&path, &tensors).unwrap();
    assert!(
        text(&error(&path, "auto"))
            .ends_with("tensor `classifier.bias` is missing, expected float [10]")
    );
    let bias = Tensor::zeros([10], (Kind::Float, Device::Cpu));
    tensors.push(("classifier.bias".to_owned(), bias.shallow_clone()));
    tensors.push(("extra".to_owned(), bias));
    let path = dir.path().join("extra.safetensors");
    tensor_file::write(&path, &tensors).unwrap();
    assert!(text(&error(&path, "auto")).ends_with("`extra` is there, expected no such tensor"));
}

#[test]
fn wrappers_and_the_name_without_flash_attention_are_understood() {
    let state: State = ["module.transformer.0.pre_norm_mha.1.out_proj.weight", "module.cls_token"]
        .map(|name| (name.to_owned(), Tensor::from(1.0)))
        .into();
    let names: Vec<_> = names::unwrapped(state).into_keys().collect();
    assert_eq!(names, ["cls_token", "transformer.0.pre_norm_mha.1.out_proj_attn.weight"]);
}

#[test]
fn images_of_another_shape_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let vit = Vit::new(VitPlan::corenet([64, 1, 1], 4, 3));
    let weights = filled(&vit);
    let model = ModelFolder { vit, weights, vocab: None, image_px: 32, crop_share: 1.0 };
    let try_size = |name: &str, size: [i64; 4]| {
        let path = dir.path().join(name);
        let images = Tensor::zeros(size, (Kind::Float, Device::Cpu));
        tensor_file::write(&path, &[("images".to_owned(), images)]).unwrap();
        logits::logits(&model, &path, &dir.path().join("out.safetensors"))
    };
    assert_eq!(try_size("whole", [17, 3, 32, 48]).unwrap(), [17, 3]);
    let error = try_size("odd", [1, 3, 32, 40]).unwrap_err();
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        format!(
            "{}: tensor `images` is Float [1, 3, 32, 40], expected float32 [n, 3, h, w] with h and \
             w multiples of 16",
            dir.path().join("odd").display()
        )
    );
}

/// The batches of the golden curve: colours that say a label, under noise.
fn curve_batch(step: i64) -> DeviceBatch {
    let noise: Vec<f64> = unit(&format!("images {step}"), 16 * 3 * 32 * 32).collect();
    let (mut pixels, mut offsets) = (Vec::<f32>::new(), vec![0_i64]);
    let (mut rows, mut labels) = (Vec::<i64>::new(), Vec::<i64>::new());
    for row in 0..16_i64 {
        let first = (step * 16 + row) % 10;
        for at in 0..3 * 32 * 32_i64 {
            let colour = ((first + at / (32 * 32)) as f64).cos();
            let noise = noise[(row * 3 * 32 * 32 + at) as usize];
            pixels.push((0.5 + 0.25 * colour + 0.25 * noise) as f32);
        }
        let second = (3 * first + 1) % 10;
        let of_row =
            if row % 2 == 0 || second == first { vec![first] } else { vec![first, second] };
        rows.extend(of_row.iter().map(|_| row));
        labels.extend(&of_row);
        offsets.push(labels.len() as i64);
    }
    DeviceBatch {
        images_bchw: Tensor::from_slice(&pixels).view([16, 3, 32, 32]),
        num_images: 16,
        targets: SparseTargets {
            rows_k: Tensor::from_slice(&rows),
            labels_k: Tensor::from_slice(&labels),
            offsets_b1: Tensor::from_slice(&offsets),
            weights_b: Tensor::ones([16], (Kind::Float, Device::Cpu)),
        },
        offsets,
        place: Place::alone(0, 0, 16),
    }
}

#[test]
fn two_hundred_steps_give_the_losses_of_plain_torch() {
    let expected: Vec<[f64; 2]> = serde_json::from_value(golden()["curve"].clone()).unwrap();
    let vit = Vit::new(VitPlan::corenet([64, 2, 2], 4, 10));
    let weights = filled(&vit);
    let cursor = Cursor::start(0);
    let mut state = TrainState::new(vit, weights, AdamWPlan::REFERENCE, 0.0, cursor).unwrap();
    let plan = StepPlan::plain(Loss::Bce { smoothing: 0.0 });
    for (at, [loss, norm]) in (0..).zip(expected) {
        let lr = 3e-4 * f64::min(1.0, (at + 1) as f64 / 20.0);
        let metrics = step(&mut state, &plan, &curve_batch(at), lr).unwrap();
        let found = metrics.loss.double_value(&[]);
        assert!((found / loss - 1.0).abs() < 1e-3, "step {at}: loss {found}, torch {loss}");
        let found = metrics.gradient_norm.double_value(&[]);
        assert!((found / norm - 1.0).abs() < 1e-2, "step {at}: norm {found}, torch {norm}");
    }
}
