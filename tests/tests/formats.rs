//! What old versions wrote is read for ever, and by engines that are not ours.

use std::process::Command;
use std::sync::Arc;

use catlip_pipeline::feed::order::Layout;
use catlip_pipeline::feed::{
    BatchSampler, Feed, FeedPlan, Selection, Sources, Stream, Targets, Viewing,
};
use catlip_pipeline::image::Filter;
use catlip_pipeline::prep::verify::verify;
use catlip_pipeline::prep::{DataSet, vocab};
use catlip_schemas::VocabCut;
use catlip_tests::root;

/// Seven scenes of the demo, prepared when the format was made; never written anew.
fn golden() -> std::path::PathBuf {
    root().join("tests/data/format-1")
}

#[test]
fn version_1_is_read_whole() {
    let checked = verify(&golden(), None, false).unwrap();
    assert_eq!((checked.snapshot, checked.rows, checked.files), (1, 7, 5));
    let data = DataSet::open(&golden()).unwrap();
    let part = &data.parts[0];
    assert_eq!(part.files["images"].groups.iter().map(|g| g.rows).collect::<Vec<_>>(), [4, 3]);
    let ids: Vec<_> = data.read_sample_ids(part).unwrap().iter().map(|i| i.to_string()).collect();
    assert_eq!(ids[0], "e3bfe602209f23fdb57ded01411db1ab");
    let captions = data.read_captions(part).unwrap();
    let synsets = data.read_synsets(part).unwrap();
    assert_eq!((captions.len(), synsets.len()), (7, 7));
    assert_eq!(captions[0][0], "art: the lamp and the big butterfly");
    let keys: Vec<_> = synsets[0][0].0.iter().map(|s| s.wnid()).collect();
    assert_eq!(keys.join(" "), "n02743547 n03636248 n02274259");
}

#[test]
fn version_1_is_fed_in_the_order_of_version_1() {
    let data = Arc::new(DataSet::open(&golden()).unwrap());
    let (frequencies, _) = vocab::count(&data, |_| true).unwrap();
    let cut = VocabCut { min_count: 1, top_k: None, multiple_of: 1 };
    let layout = Layout::Shuffled { seed: 1, lanes: 2, window_groups: 1 };
    let stream = Stream::of_one(Selection::all(&data), layout, BatchSampler::fixed(32, 7));
    let vocab = Arc::new(vocab::from_frequencies(&frequencies, &cut).unwrap());
    let viewing = Viewing::Centre { resize_px: 32, filter: Filter::Bilinear };
    let sources = Sources::of_one(data).unwrap();
    let plan =
        FeedPlan { with_captions: true, ..FeedPlan::new(sources, stream, vocab, viewing, 1) };
    let batch = Feed::start(plan).unwrap().next().unwrap().unwrap();
    let heads: Vec<String> =
        batch.sample_ids.iter().map(|i| i.to_string()[..4].to_owned()).collect();
    assert_eq!(heads.join(" "), "e3bf 0dce be29 70ff ce67 997e a3ca");
    let Targets::LabelsCsr { offsets, ids } = batch.targets.clone();
    assert_eq!((offsets.len(), ids.len()), (8, 22));
}

#[test]
fn pyarrow_reads_every_column_set_by_its_glob() {
    let packages = root().join(".deps/pyarrow");
    let python = |code: &str| {
        Command::new("python3").arg("-c").arg(code).env("PYTHONPATH", &packages).output().unwrap()
    };
    if !python("import pyarrow").status.success() {
        println!("skipped: python3 has no pyarrow");
        return;
    }
    let code = format!(
        "import glob, pyarrow.parquet as pq\n\
         root = {:?}\n\
         for name in ['images', 'meta', 'captions', 'synsets.corenet-1', 'rejects']:\n    \
             table = pq.read_table(sorted(glob.glob(f'{{root}}/{{name}}/*.parquet')))\n    \
             print(name, table.num_rows, *(f'{{f.name}}:{{f.type}}' for f in table.schema))\n\
         images = pq.read_table(glob.glob(f'{{root}}/images/*.parquet')[0])\n\
         print(all(v.as_py()[:2] == b'\\xff\\xd8' for v in images['image']))\n\
         parts = pq.read_table(glob.glob(f'{{root}}/manifest/*.parquet')[0])\n\
         print(parts.num_rows, parts['groups'][0].as_py()[0]['rows'])\n",
        golden().display().to_string()
    );
    let output = python(&code);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "images 7 sample_id:fixed_size_binary[16] image:binary\n\
         meta 7 sample_id:fixed_size_binary[16] key:string source_shard:string \
         source_offset:int64 source_bytes:int64 encoding:string width:int32 height:int32 \
         source_width:int32 source_height:int32 image_hash:fixed_size_binary[16] json:string\n\
         captions 7 captions:list<element: struct<text: string not null, origin: string not null> \
         not null>\n\
         synsets.corenet-1 7 synsets:list<element: list<element: int32 not null> not null>\n\
         rejects 0 key:string source_shard:string source_offset:int64 stage:string reason:string \
         message:string\n\
         True\n\
         5 7\n"
    );
}
