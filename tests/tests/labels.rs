//! `catlip-prep labels` and `catlip-prep vocab` as their users meet them: pipes, bad input, Python.
#![expect(clippy::unwrap_used, reason = "a test that fails says so by a panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use catlip_tests::{program, run, samples, shard, told};

/// The program with these words, its pipes held by the test.
fn filter(words: &[&str]) -> Child {
    let mut filter = program("catlip-prep");
    filter.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    filter.spawn().unwrap()
}

/// Exit code, standard output and standard error of `catlip-prep labels` for this input.
fn labels(input: &[u8], words: &[&str]) -> (i32, String, String) {
    let mut filter = filter(&[&["labels"], words].concat());
    let mut stdin = filter.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = filter.wait_with_output().unwrap();
    // A filter that ends before it has read all is tried below by its exit code.
    drop(writer.join().unwrap());
    told(&output)
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.text(name)
    }

    /// A data set of `count` samples: their captions in turn are of a dog on a beach, two cars, a
    /// tree and a house, the dog.
    fn data_set(&self, name: &str, count: usize) -> String {
        let shard = self.write(&format!("{name}.tar"), &shard(&samples(0, count, 16)));
        let output = self.text(name);
        let words = ["run", "--quiet", "--input", &shard, "--output", &output];
        let (code, _, err) = told(&run("catlip-prep", &words));
        assert_eq!(code, 0, "{err}");
        output
    }
}

fn vocab(words: &[&str]) -> (i32, String, String) {
    told(&run("catlip-prep", &[&["vocab"], words].concat()))
}

/// What Python prints for this program, or none without Python.
fn python(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new("python3").args(["-c", program]).args(arguments).output() {
        Err(_) => {
            println!("skipped: no python3");
            None
        }
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap())
        }
    }
}

#[test]
fn captions_and_json_lines_are_labelled_in_their_order() {
    let (code, out, err) = labels(b"hot dog on a cell phone\n\nthe dogs", &["--keys", "wnid"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "{\"caption\":\"hot dog on a cell phone\",\"synsets\":[\"n02084071\",\"n02991711\"]}\n\
         {\"caption\":\"\",\"synsets\":[]}\n\
         {\"caption\":\"the dogs\",\"synsets\":[\"n02084071\"]}\n"
    );
    let json = br#"{"url": "u", "texts": ["a dog", null]}
{"caption":null}
"#;
    let (code, out, err) = labels(json, &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "{\"url\": \"u\", \"texts\": [\"a dog\", null],\"synsets\":[[\"n2084071\"],null]}\n\
         {\"caption\":null,\"synsets\":null}\n"
    );
}

#[test]
fn a_hundred_thousand_captions_come_back_in_their_order() {
    let input: String = (0..100_000).map(|i| format!("{i} dogs\n")).collect();
    let (code, out, err) = labels(input.as_bytes(), &["--threads", "3"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out.lines().count(), 100_000);
    for (i, line) in out.lines().enumerate() {
        assert!(line.starts_with(&format!("{{\"caption\":\"{i} dogs\"")), "line {i}: {line}");
    }
}

#[test]
fn a_line_is_answered_while_the_producer_is_still_there() {
    let mut filter = filter(&["labels"]);
    let mut stdin = filter.stdin.take().unwrap();
    let mut answers = BufReader::new(filter.stdout.take().unwrap()).lines();
    // Each answer is waited for: without it there would be no next line.
    for word in ["dog", "cat", "car"] {
        stdin.write_all(format!("a {word}\n").as_bytes()).unwrap();
        let answer = answers.next().unwrap().unwrap();
        assert!(answer.starts_with(&format!("{{\"caption\":\"a {word}\"")), "{answer}");
    }
    drop(stdin);
    assert!(answers.next().is_none());
    assert!(filter.wait().unwrap().success());
}

#[test]
fn a_closed_output_ends_it_quietly_though_the_producer_goes_on() {
    let mut filter = filter(&["labels"]);
    let mut stdin = filter.stdin.take().unwrap();
    drop(filter.stdout.take());
    // The write fails once the filter has gone; until then the producer never stops.
    while stdin.write_all(b"a dog on a beach\n").is_ok() {}
    let output = filter.wait_with_output().unwrap();
    assert_eq!(told(&output), (0, String::new(), String::new()));
}

#[test]
fn an_explanation_that_nobody_reads_to_its_end_is_no_error_either() {
    for words in [&["config"][..], &["labels", "--explain"]] {
        let mut filter = filter(words);
        drop(filter.stdout.take());
        drop(filter.stdin.take().unwrap().write_all(b"a dog\n"));
        assert_eq!(told(&filter.wait_with_output().unwrap()), (0, String::new(), String::new()));
    }
}

#[test]
fn a_full_disk_below_standard_output_is_an_error() {
    let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") else {
        println!("skipped: no /dev/full");
        return;
    };
    let mut filter = program("catlip-prep");
    let place = Place::new();
    let captions = place.write("captions.txt", b"a dog\n");
    filter.args(["labels", "--input", &captions]).stdout(full);
    let (code, _, err) = told(&filter.output().unwrap());
    assert_eq!(code, 8, "{err}");
    assert!(err.contains("no space is left on the disk of standard output"), "{err}");
}

#[test]
fn what_is_no_caption_ends_the_job_after_all_lines_before_it() {
    let (code, out, err) = labels(b"a dog\nthe caf\xe9\na cat\n", &[]);
    assert_eq!(code, 5, "{err}");
    assert_eq!(out, "{\"caption\":\"a dog\",\"synsets\":[\"n2084071\"]}\n");
    assert_eq!(
        err,
        "error: line 2 of standard input cannot be labelled: it is not UTF-8: byte 0xe9 at offset \
         7\nhint: go on past such lines with --bad mark or --bad skip; lines that begin with `{` \
         but are no JSON need --format text\n"
    );
    let (code, _, err) = labels(b"{\"caption\":\"a\"}\n{\"caption\":3}\n", &[]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("line 2 of standard input cannot be labelled: `caption` is 3,"), "{err}");
}

#[test]
fn bad_lines_can_be_marked_or_skipped_and_are_counted() {
    let input = b"{\"text\":\"a dog\"}\n{\"text\":7}\nno json\n{\"text\":\"\"}\n";
    let (code, out, err) = labels(input, &["--bad", "mark"]);
    assert_eq!(code, 0, "{err}");
    let lines: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[1]["line"], 2);
    assert_eq!(lines[1]["synsets"], serde_json::Value::Null);
    assert!(lines[2]["error"].as_str().unwrap().starts_with("it is no JSON object: "));
    assert_eq!(lines[3]["synsets"], serde_json::json!([]));
    assert_eq!(
        err,
        "2 of 4 lines were no captions; the first: line 2: `text` is 7, expected a string, a list \
         of strings, or null\n"
    );
    let (code, out, _) = labels(input, &["--bad", "skip"]);
    assert_eq!((code, out.lines().count()), (0, 2));
}

#[test]
fn a_hundred_megabytes_without_an_end_of_line_are_one_bad_line() {
    let mut filter = filter(&["labels", "--bad", "mark"]);
    let mut stdin = filter.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let megabyte = vec![b'a'; 1 << 20];
        (0..100).for_each(|_| stdin.write_all(&megabyte).unwrap());
        stdin.write_all(b"\na dog\n").unwrap();
    });
    let mut out = String::new();
    filter.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    writer.join().unwrap();
    assert!(filter.wait().unwrap().success());
    assert_eq!(
        out,
        "{\"line\":1,\"error\":\"it has more than 4194304 bytes, the limit (--line-bytes-max)\",\
         \"synsets\":null}\n{\"caption\":\"a dog\",\"synsets\":[\"n2084071\"]}\n"
    );
}

#[test]
fn an_endless_line_without_an_end_of_line_is_refused_at_once() {
    let Ok(zeros) = std::fs::File::open("/dev/zero") else {
        println!("skipped: no /dev/zero");
        return;
    };
    let (code, out, err) =
        told(&program("catlip-prep").arg("labels").stdin(zeros).output().unwrap());
    assert_eq!((code, out.as_str()), (5, ""), "{err}");
    assert!(err.contains("line 1 of standard input cannot be labelled: it has more than"), "{err}");
}

#[test]
fn nul_and_other_controls_are_part_of_a_caption() {
    let (code, out, err) = labels(b"a do\0g\x1b[31m\n", &[]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, "{\"caption\":\"a do\\u0000g\\u001b[31m\",\"synsets\":[\"n2084071\"]}\n");
}

#[test]
fn an_explanation_says_of_each_word_what_became_of_it() {
    let (code, out, err) = labels(b"Photo of dogs\n", &["--explain"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let expected = [
        "caption: Photo of dogs",
        "  token  lemma  verdict                                 synset",
        "  photo  photo  dropped: its synset bears another name  photograph (n03925226: also \
         photo; a kind of representation)",
        "  of     of     dropped: no noun of WordNet",
        "  dogs   dog    kept: its synset bears its name         dog (n02084071: also canis \
         familiaris; a kind of canine)",
        "labels: dog n2084071",
        "",
    ];
    let table = out.split_once("\n\n").unwrap().1;
    assert_eq!(table, expected.join("\n"));
}

#[test]
fn unknown_rules_and_files_have_their_exit_codes() {
    let (code, _, err) = labels(b"", &["--rule", "nuons"]);
    assert_eq!(code, 3, "{err}");
    assert_eq!(err.matches("label rule `nuons` is unknown; known: corenet").count(), 1, "{err}");
    let (code, _, err) = labels(b"", &["--input", "/nowhere/captions.txt"]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("the input cannot be read\n"), "{err}");
    assert!(err.contains("cannot read /nowhere/captions.txt\n"), "{err}");
    assert_eq!(labels(b"", &["--keys", "padded"]).0, 2);
    let (code, _, err) = labels(b"", &["--set", "caption.rule=nouns"]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("caption.rule: `labels` does not read that setting"), "{err}");
    assert!(err.contains("those of `nouns`") && err.contains("hint: name the rule with --rule"));
    assert_eq!(labels(b"", &["--set", "runtime.threads=1"]).0, 3);
    assert_eq!(labels(b"", &["--rule", "nouns", "--set", "nouns.phrases=false"]).0, 0);
}

#[test]
fn data_sets_are_counted_merged_and_weighted() {
    let place = Place::new();
    let (data, out) = (place.data_set("data", 8), place.text("v.parquet"));
    let (code, said, err) = vocab(&["--input", &data, "--output", &out]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        said,
        format!("6 of 6 synsets from 8 rows, the rarest kept occurs 2 times: {out}\n")
    );
    let both = place.text("both.pkl");
    let words = ["--input", &data, &out, "--weight", "1", "2.5", "--output", &both];
    let (code, said, err) = vocab(&[&words[..], &["--top-k", "5", "--multiple-of", "4"]].concat());
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        said,
        format!("4 of 6 synsets from 8 rows, the rarest kept occurs 7 times: {both}\n")
    );
    let Some(loaded) = python(
        "import pickle, sys; print(list(pickle.load(open(sys.argv[1], 'rb')).items()))",
        &[&both],
    ) else {
        return;
    };
    // Dogs in half of the captions, the others in a quarter each, by rising number of synset.
    assert_eq!(loaded, "[('n2084071', 14), ('n2958343', 7), ('n3544360', 7), ('n9217230', 7)]\n");
}

#[test]
fn the_order_of_a_vocabulary_file_is_its_numbering_and_stays() {
    let place = Place::new();
    // {"n5928118": 3, "n1740": 9, "n4960277": 3, "n2084071": 1}, not by falling count.
    let pickled =
        b"\x80\x02}(X\x08\0\0\0n5928118K\x03X\x05\0\0\0n1740K\x09X\x08\0\0\0n4960277K\x03\
        X\x08\0\0\0n2084071K\x01u.";
    let given = place.write("given.pkl", pickled);
    let (parquet, back) = (place.text("v.parquet"), place.text("back.pkl"));
    let (code, said, err) = vocab(&["--input", &given, "--output", &parquet, "--min-count", "2"]);
    assert_eq!(code, 0, "{err}");
    assert!(said.starts_with("3 of 4 synsets of 16 occurrences, the rarest kept occurs 3 times"));
    assert_eq!(vocab(&["--input", &parquet, "--output", &back]).0, 0);
    let bytes = std::fs::read(&back).unwrap();
    let place_of = |key: &[u8]| bytes.windows(key.len()).position(|window| window == key);
    let places = [b"n5928118".as_slice(), b"n1740", b"n4960277"].map(|key| place_of(key).unwrap());
    assert!(places.is_sorted(), "{places:?}");
    assert_eq!(place_of(b"n2084071"), None);
}

/// What the reference does with the file (catlip.md §1.4): loads it, takes the first keys in the
/// order of the dict, and numbers a label by its place among them.
const REFERENCE: &str = "
import pickle, sys
with open(sys.argv[1], 'rb') as file:
    counts = pickle.load(file)
assert type(counts) is dict
assert all(type(key) is str and type(count) is int for key, count in counts.items())
names = list(counts.keys())[: int(sys.argv[2])]
for key in sys.argv[3:]:
    print(names.index(key) if key in names else None)
";

#[test]
fn the_reference_numbers_labels_of_our_pickle_as_we_do() {
    let place = Place::new();
    let (data, pkl) = (place.data_set("data", 8), place.text("v.pkl"));
    let parquet = place.text("v.parquet");
    for out in [&pkl, &parquet] {
        let (code, _, err) = vocab(&["--input", &data, "--output", out]);
        assert_eq!(code, 0, "{err}");
    }
    let keys = ["n2084071", "n2958343", "n13743269", "n5"];
    let Some(theirs) = python(REFERENCE, &[&[pkl.as_str(), "5"][..], &keys].concat()) else {
        return;
    };
    let ours = catlip_pipeline::prep::vocab::read(Path::new(&parquet)).unwrap();
    let number = |key: &&str| {
        let label = ours.label_of(key.parse().unwrap()).filter(|&label| label < 5);
        label.map_or("None".to_owned(), |label| label.to_string())
    };
    assert_eq!(theirs.lines().collect::<Vec<_>>(), keys.iter().map(number).collect::<Vec<_>>());
    assert_eq!(theirs.lines().next(), Some("0"));
}

#[test]
fn the_released_vocabulary_comes_back_as_it_was() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/vocab");
    let released = shared.join("datacomp_1_2B_vocab.pkl");
    if !released.is_file() {
        println!("skipped: no ../shared (datacomp_1_2B_vocab.pkl)");
        return;
    }
    let released = released.display().to_string();
    let place = Place::new();
    let (parquet, back) = (place.text("v.parquet"), place.text("back.pkl"));
    let (code, said, err) = vocab(&["--input", &released, "--output", &parquet]);
    assert_eq!(code, 0, "{err}");
    assert!(said.starts_with("40456 of 40456 synsets of 5766403588 occurrences,"), "{said}");
    let (_, said, _) = vocab(&["--input", &released, "--output", &back, "--min-count", "500"]);
    assert!(said.starts_with("24268 of 40456 synsets"), "{said}");
    let (_, said, _) = vocab(&["--input", &parquet, "--output", &back]);
    assert!(said.starts_with("40456 of 40456 synsets"), "{said}");
    let same = "import pickle, sys; a, b = (list(pickle.load(open(path, 'rb')).items()) \
                for path in sys.argv[1:]); print(a == b, len(b))";
    if let Some(told) = python(same, &[&released, &back]) {
        assert_eq!(told, "True 40456\n");
    }
}

#[test]
fn hostile_and_foreign_files_are_no_vocabularies() {
    let place = Place::new();
    let out = place.text("out.parquet");
    let mark = place.path("mark");
    let shell = format!("touch {}", mark.display());
    let cases: [(&str, Vec<u8>, &str); 5] = [
        (
            "code.pkl",
            format!("cposix\nsystem\n(X{}\0\0\0{shell}tR.", char::from(shell.len() as u8)).into(),
            "opcode GLOBAL at byte 0: it would run code, which is never done",
        ),
        (
            "long.pkl",
            b"\x80\x05}\x8d\xff\xff\xff\xff\xff\xff\xff\x7fn1740K\x01s.".to_vec(),
            "opcode BINUNICODE8 at byte 3: 9223372036854775807 bytes are expected",
        ),
        ("list.pkl", b"]K\x01a.".to_vec(), "it is a list, expected a dict of counts by synset key"),
        ("words.txt", b"n02084071 dog\n".to_vec(), "opcode 0x6e at byte 0: no protocol has"),
        ("cut.parquet", b"PAR1\0\0".to_vec(), "cannot read"),
    ];
    for (name, bytes, expected) in cases {
        let given = place.write(name, &bytes);
        let (code, _, err) = vocab(&["--input", &given, "--output", &out]);
        assert!(err.contains(expected), "{name}: {err}");
        assert_eq!(code, if name.ends_with(".parquet") { 1 } else { 5 }, "{err}");
    }
    assert!(!mark.exists() && !place.path("out.parquet").exists());
}

#[test]
fn coverage_is_counted_and_listed() {
    let place = Place::new();
    let given = place.write(
        "v.pkl",
        b"}(X\x08\0\0\0n2084071K\x09X\x08\0\0\0n2958343K\x07X\x08\0\0\0n2099029K\x05u.",
    );
    let list = place.write("list.txt", b"n02084071\ngolden retriever\nCars\nxyzzy\n\n");
    let (code, out, err) = vocab(&["--input", &given, "--cover", &list]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "# 4 entries against 3 labels: 2 exact, 1 nearest, 1 none (1 of them unknown to WordNet \
         3.0)\n# similarity 1/1: 2 entries (50.0 %)\n\
         # similarity 1/2: 1 entries (25.0 %)\n\
         entry\tsynset\tlemma\tmatch\tsimilarity\tlabel_synset\tlabel_lemma\tlabel\toccurrences\n\
         n02084071\tn02084071\tdog\texact\t1.0000\tn02084071\tdog\t0\t9\n\
         golden retriever\tn02099601\tgolden_retriever\tnearest\t0.5000\tn02099029\tretriever\t2\t\
         5\nCars\tn02958343\tcar\texact\t1.0000\tn02958343\tcar\t1\t7\n\
         xyzzy\t\t\tnone\t\t\t\t\t\n"
    );
}

#[test]
fn flags_that_do_not_go_together_are_refused_before_anything_is_read() {
    let place = Place::new();
    let out = place.text("v.parquet");
    let refused = |words: &[&str], expected: &str| {
        let (code, _, err) = vocab(words);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(expected), "{err}");
    };
    refused(&["--input", "/nowhere"], "--output");
    refused(&["--input", "/nowhere", "--output", "v.json"], "expected .parquet or .pkl");
    let two = ["--input", "/nowhere", "--output", &out, "--weight", "1", "2"];
    refused(&two, "2 weights for 1 inputs, expected one for each");
    let with = |flag, value| ["--input", "/nowhere", "--output", out.as_str(), flag, value];
    for weight in ["-1", "NaN", "inf", "1e300", "1000001", "much"] {
        refused(&with("--weight", weight), "expected a number from 0 to 1000000");
    }
    for (flag, value) in
        [("--multiple-of", "0"), ("--top-k", "0"), ("--top-k", "-1"), ("--min-count", "-1")]
    {
        refused(&with(flag, value), value);
    }
    let (code, _, err) = vocab(&["--input", "/nowhere", "--output", &out]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("cannot read /nowhere"), "{err}");
}

#[test]
fn a_vocabulary_without_a_label_is_a_mistake_of_the_flags() {
    let place = Place::new();
    let (data, out) = (place.data_set("data", 8), place.text("v.parquet"));
    assert_eq!(vocab(&["--input", &data, "--output", &out]).0, 0);
    std::fs::copy(&out, place.path("given.parquet")).unwrap();
    std::fs::remove_file(&out).unwrap();
    for input in [data, place.text("given.parquet")] {
        for flags in [["--min-count", "99999999999"], ["--multiple-of", "256"]] {
            let words = ["--input", &input, "--output", &out];
            let (code, _, err) = vocab(&[&words[..], &flags].concat());
            assert_eq!(code, 2, "{err}");
            assert!(err.contains("no label would be left of 6 synsets"), "{err}");
            assert!(err.contains("the commonest occurs 4 times"), "{err}");
            assert!(err.contains(&flags.join(" ")), "{err}");
        }
    }
    assert!(!Path::new(&out).exists());
}

#[test]
fn a_vocabulary_lies_in_no_data_set_but_in_its_folder_for_that() {
    let place = Place::new();
    let data = place.data_set("data", 4);
    for name in ["data/v.parquet", "data/captions/v.parquet", "data/../data/v.pkl"] {
        let (code, _, err) = vocab(&["--input", &data, "--output", &place.text(name)]);
        assert_eq!(code, 6, "{name}: {err}");
        assert!(err.contains("lies in the data set") && err.contains("vocab/ only"), "{err}");
        assert!(!place.path(name).exists());
    }
    std::fs::create_dir(place.path("data/vocab")).unwrap();
    let (code, _, err) =
        vocab(&["--input", &data, "--output", &place.text("data/vocab/v.parquet")]);
    assert_eq!(code, 0, "{err}");
    let again = ["run", "--quiet", "--input", &place.text("data.tar"), "--output", &data];
    assert_eq!(told(&run("catlip-prep", &again)).0, 0);
    assert_eq!(told(&run("catlip-prep", &["verify", &data])).0, 0);
}

#[test]
fn the_help_of_both_says_what_goes_in_and_what_comes_out() {
    for (command, words) in [
        ("labels", &["JSON lines", "--explain", "--bad", "Exit codes:", "one field more"]),
        ("vocab", &["path_similarity", "--weight", "--cover", "Exit codes:", "pickled dict"]),
    ] {
        let (code, out, _) = told(&run("catlip-prep", &[command, "--help"]));
        assert_eq!(code, 0);
        for word in words {
            assert!(out.contains(word), "{command}: {word} is missing from\n{out}");
        }
    }
}
