//! The house's limits, measured: sizes, who may name what, words that may not stand anywhere.
//!
//! In: every file of the checkout that git does not ignore. Out: `path:line: what is wrong`, all of
//! them at once. Each check is a function from a [`Source`] to findings, tried below on an input
//! that breaks it.

#![expect(clippy::unwrap_used, reason = "a file that cannot be read fails the test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a source file, its tests not counted.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function, from its `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;
/// Columns of a line, in characters. Tables of Markdown and lines with an address may be longer.
const COLUMNS_MAX: usize = 100;
/// Lines of the two documents that everybody reads.
const DOCUMENT_LINES_MAX: [(&str, usize); 2] = [("README.md", 180), ("ARCHITECTURE.md", 300)];

/// Where a foreign library or a raw buffer is wrapped. A folder ends in `/`.
const UNSAFE_FILES: &[&str] = &[
    "pipeline/src/image/jpeg/",
    "pipeline/src/image/simd.rs",
    "pipeline/src/source/map.rs",
    "pipeline/src/feed/slot.rs",
    "pipeline/src/feed/ring.rs",
    "python/src/capsule.rs",
    "python/src/array.rs",
    "trainer/shim/",
    "trainer/src/batch.rs",
    "trainer/src/device.rs",
    "trainer/src/kernels/",
    "trainer/src/page_lock.rs",
    "trainer/src/upload.rs",
];
/// The one module that waits for networks.
const ASYNC_FILES: [&str; 2] =
    ["pipeline/src/source/object.rs", "pipeline/src/source/object/write.rs"];
/// The crates that are libraries: they know no terminal and no environment.
const LIBRARIES: [&str; 3] = ["schemas/src/", "pipeline/src/", "trainer/src/"];
/// What only a `cli` module or a binary may name.
const TERMINAL: [&str; 13] = [
    "clap",
    "indicatif",
    "signal_hook",
    "env::",
    "println!",
    "eprintln!",
    "print!",
    "eprint!",
    "stdout()",
    "stderr()",
    "stdin()",
    "process::exit",
    "ExitCode",
];
/// Names of folders that say nothing.
const EMPTY_NAMES: [&str; 7] = ["utils", "util", "common", "core", "helpers", "helper", "misc"];
/// Text that belongs to a machine and not to the project, in halves so that it is not found here.
const FORBIDDEN: [(&str, &str); 6] = [
    ("/wo", "rk/"),
    ("/ro", "ot/"),
    ("crates", ".io"),
    ("pypi", ".org"),
    ("python", "hosted.org"),
    ("docker", ".io"),
];
/// A word that means one thing in another project's terms and nothing in ours.
const FORBIDDEN_WORD: (&str, &str) = ("ses", "sion");
/// Written by tools or by others, so measured by nobody.
const NOT_OURS: [&str; 3] = ["Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT"];
/// Endings of the files that are text of ours.
const TEXT: [&str; 10] = ["rs", "toml", "md", "sh", "py", "yml", "cpp", "h", "cu", "html"];

/// One line that breaks one rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

/// A file with what stands in it apart from comments and strings.
struct Source {
    path: String,
    lines: Vec<String>,
    /// The same lines with comments, strings and characters blanked; empty if it is not Rust.
    code: Vec<String>,
    /// Whether a line belongs to tests.
    is_test: Vec<bool>,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let lines: Vec<String> = text.lines().map(str::to_string).collect();
        let code: Vec<String> = match path.ends_with(".rs") {
            true => blank(text).lines().map(str::to_string).collect(),
            false => Vec::new(),
        };
        let in_tests =
            path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_tests.rs");
        let mut is_test = vec![in_tests; lines.len()];
        for start in 0..code.len() {
            let attribute = code[start].trim();
            let is_cfg = attribute.starts_with("#[cfg(") && !attribute.contains("not(test");
            if is_cfg && has_word(attribute, "test") {
                let end = end_of_braces(&code, start + 1).unwrap_or(start);
                is_test[start..=end].fill(true);
            }
        }
        Self { path: path.to_string(), lines, code, is_test }
    }

    fn find(&self, index: usize, what: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line: index + 1, what: what.into() }
    }

    /// Lines of code outside tests, with their index.
    fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.iter().map(String::as_str).enumerate();
        lines.filter(|&(index, _)| !self.is_test[index])
    }
}

/// Blanks comments, strings and characters of Rust code, and keeps its lines.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = end_of_token(&chars, at);
        let is_blank = end > at + 1 || matches!(chars[at], '"');
        for &char in &chars[at..end] {
            out.push(if is_blank && char != '\n' { ' ' } else { char });
        }
        at = end;
    }
    out
}

/// The end of the comment, string or character that starts at `at`, else `at + 1`.
fn end_of_token(chars: &[char], at: usize) -> usize {
    let starts =
        |at: usize, with: &str| with.chars().eq(chars[at..].iter().copied().take(with.len()));
    let follows_word = at > 0 && is_word(chars[at - 1]);
    if starts(at, "//") {
        return (at..chars.len()).find(|&i| chars[i] == '\n').unwrap_or(chars.len());
    }
    if starts(at, "/*") {
        return end_of_comment(chars, at);
    }
    if !follows_word && matches!(chars[at], 'r' | 'b' | 'c') {
        let mut quote = at + 1;
        if chars[at] != 'r' && chars.get(quote) == Some(&'r') {
            quote += 1;
        }
        let is_raw = chars[quote - 1] == 'r';
        let num_hashes = chars[quote..].iter().take_while(|&&c| is_raw && c == '#').count();
        if chars.get(quote + num_hashes) == Some(&'"') {
            return match is_raw {
                true => end_of_raw_string(chars, quote + num_hashes + 1, num_hashes),
                false => end_of_quotes(chars, quote, '"'),
            };
        }
    }
    match chars[at] {
        '"' => end_of_quotes(chars, at, '"'),
        // A lifetime has no second quote right after its first letter.
        '\'' if chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'') => {
            end_of_quotes(chars, at, '\'')
        }
        _ => at + 1,
    }
}

fn end_of_comment(chars: &[char], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut i = at;
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                i += 1;
                continue;
            }
        }
        i += 2;
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn end_of_raw_string(chars: &[char], start: usize, num_hashes: usize) -> usize {
    let is_end = |i: &usize| {
        let hashes = chars[i + 1..].iter().take(num_hashes);
        chars[*i] == '"' && hashes.filter(|&&c| c == '#').count() == num_hashes
    };
    (start..chars.len()).find(is_end).map_or(chars.len(), |i| i + 1 + num_hashes)
}

fn end_of_quotes(chars: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 1,
            char if char == quote => return i + 1,
            _ => {}
        }
        i += 1;
    }
    chars.len()
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// Whether `word` stands in `line` with no letter, digit or underscore on its outer sides.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        let opens = !word.starts_with(is_word) || !before.is_some_and(is_word);
        let closes = !word.ends_with(is_word) || !after.is_some_and(is_word);
        opens && closes
    })
}

/// The line of the brace that closes the first one at or after line `start`; none if a semicolon
/// comes first.
fn end_of_braces(code: &[String], start: usize) -> Option<usize> {
    let mut braces = 0_usize;
    let mut others = 0_usize;
    for (index, line) in code.iter().enumerate().skip(start) {
        // The first line may close what an earlier line opened: begin where the word stands.
        let from = if index == start { line.find(is_word).unwrap_or(0) } else { 0 };
        for char in line[from..].chars() {
            match char {
                '(' | '[' => others += 1,
                ')' | ']' => others = others.saturating_sub(1),
                ';' if braces == 0 && others == 0 => return None,
                '{' => braces += 1,
                '}' if braces == 1 => return Some(index),
                '}' => braces = braces.saturating_sub(1),
                _ => {}
            }
        }
    }
    None
}

fn check_sizes(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_measured = [".rs", ".sh", ".py"].iter().any(|ending| source.path.ends_with(ending));
    let num_lines = source.is_test.iter().filter(|&&is_test| !is_test).count();
    if is_measured && num_lines > FILE_LINES_MAX {
        let what = format!("{num_lines} lines without tests, above the limit of {FILE_LINES_MAX}");
        findings.push(source.find(0, what));
    }
    for (name, limit) in DOCUMENT_LINES_MAX {
        if source.path == name && source.lines.len() > limit {
            let what = format!("{} lines, above the limit of {limit}", source.lines.len());
            findings.push(source.find(0, what));
        }
    }
    for (index, line) in source.lines.iter().enumerate() {
        let num_columns = line.chars().count();
        let is_prose = source.path.ends_with(".md");
        if num_columns > COLUMNS_MAX && !is_prose && !line.contains("://") {
            let what = format!("{num_columns} columns, above the limit of {COLUMNS_MAX}");
            findings.push(source.find(index, what));
        }
    }
    findings
}

fn check_functions(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in source.code.iter().enumerate() {
        let Some(name) = line.split_once("fn ").filter(|_| has_word(line, "fn")) else { continue };
        let Some(end) = end_of_braces(&source.code, index) else { continue };
        let num_lines = end - index + 1;
        if num_lines > FUNCTION_LINES_MAX {
            let name: String = name.1.chars().take_while(|&char| is_word(char)).collect();
            let what =
                format!("`{name}` has {num_lines} lines, above the limit of {FUNCTION_LINES_MAX}");
            findings.push(source.find(index, what));
        }
    }
    findings
}

fn check_unsafe(source: &Source) -> Vec<Finding> {
    let is_listed = UNSAFE_FILES.iter().any(|listed| {
        source.path == *listed || (listed.ends_with('/') && source.path.starts_with(listed))
    });
    let lines = source.code.iter().enumerate();
    lines
        .filter(|(_, line)| !is_listed && has_word(line, "unsafe"))
        .map(|(index, _)| source.find(index, "`unsafe` in a file that is not in UNSAFE_FILES"))
        .collect()
}

fn check_terminal(source: &Source) -> Vec<Finding> {
    let is_library = LIBRARIES.iter().any(|library| source.path.starts_with(library));
    let is_cli = ["/cli.rs", "/cli/", "/bin/"].iter().any(|part| source.path.contains(part));
    if !is_library || is_cli {
        return Vec::new();
    }
    let named = |line: &str| TERMINAL.into_iter().find(|name| has_word(line, name));
    source
        .shipped()
        .filter_map(|(index, line)| named(line).map(|name| (index, name)))
        .map(|(index, name)| source.find(index, format!("`{name}` outside of `cli`")))
        .collect()
}

fn check_panics(source: &Source) -> Vec<Finding> {
    // A fuzz target is a test, whose panics are its verdict.
    if source.path.starts_with("pipeline/fuzz/") {
        return Vec::new();
    }
    let panics = [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("];
    source
        .shipped()
        .filter_map(|(index, line)| {
            let panic = panics.into_iter().find(|panic| line.contains(panic))?;
            Some(source.find(index, format!("`{panic}` outside of tests")))
        })
        .collect()
}

fn check_attributes(source: &Source) -> Vec<Finding> {
    let lines = source.code.iter().enumerate();
    lines
        .filter(|(_, line)| line.contains("#[allow") || line.contains("#![allow"))
        .map(|(index, _)| source.find(index, "`allow`, expected `expect` with a reason"))
        .collect()
}

fn check_async(source: &Source) -> Vec<Finding> {
    let lines = source.code.iter().enumerate();
    lines
        .filter(|(_, line)| !ASYNC_FILES.contains(&source.path.as_str()) && has_word(line, "async"))
        .map(|(index, _)| source.find(index, format!("`async` outside of {}", ASYNC_FILES[0])))
        .collect()
}

fn check_tch(source: &Source) -> Vec<Finding> {
    let is_bound = ["schemas/", "pipeline/"].iter().any(|part| source.path.starts_with(part));
    let lines = if source.path.ends_with(".toml") { &source.lines } else { &source.code };
    let names = ["tch", "torch_sys", "torch-sys", "catlip_trainer", "catlip-trainer"];
    let is_named = |line: &str| names.into_iter().any(|name| has_word(line, name));
    let lines = lines.iter().enumerate();
    lines
        .filter(|(_, line)| is_bound && is_named(line))
        .map(|(index, _)| source.find(index, "schemas and pipeline know neither tch nor trainer"))
        .collect()
}

fn check_folders(source: &Source) -> Vec<Finding> {
    let folders = source.path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part));
    folders
        .filter(|folder| EMPTY_NAMES.contains(folder))
        .map(|folder| source.find(0, format!("`{folder}` says nothing about what is in it")))
        .collect()
}

fn check_words(source: &Source) -> Vec<Finding> {
    let word = [FORBIDDEN_WORD.0, FORBIDDEN_WORD.1].concat();
    let mut findings = Vec::new();
    for (index, line) in source.lines.iter().enumerate() {
        for (head, tail) in FORBIDDEN {
            let text = [head, tail].concat();
            if line.contains(&text) {
                findings.push(source.find(index, format!("forbidden text `{text}`")));
            }
        }
        let line = line.to_lowercase();
        let is_onnx = line.contains("onnx") || line.contains("ort::");
        if !is_onnx && (has_word(&line, &word) || has_word(&line, &format!("{word}s"))) {
            findings.push(source.find(index, format!("forbidden word `{word}`")));
        }
    }
    findings
}

fn check_dependencies(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut is_inside = false;
    for (index, line) in source.lines.iter().enumerate() {
        if line.starts_with('[') {
            is_inside = source.path == "Cargo.toml" && line == "[workspace.dependencies]";
        } else if is_inside && line.contains(" = ") && !line.contains("path = ") {
            let is_explained = line.contains(" # ") || source.lines[index - 1].starts_with('#');
            if !is_explained && !line.starts_with('#') {
                findings.push(source.find(index, "a dependency without a comment that says why"));
            }
        }
    }
    findings
}

/// Every check, in the order in which their findings are shown.
const CHECKS: [fn(&Source) -> Vec<Finding>; 11] = [
    check_sizes,
    check_functions,
    check_unsafe,
    check_terminal,
    check_panics,
    check_attributes,
    check_async,
    check_tch,
    check_folders,
    check_words,
    check_dependencies,
];

/// The text files of the checkout, links not followed, what `.gitignore` names left out.
fn sources(root: &Path) -> Vec<Source> {
    let ignored = fs::read_to_string(root.join(".gitignore")).unwrap();
    let is_ignored = |path: &Path| {
        let mut lines = ignored.lines().chain(["/.git/"]);
        lines.any(|line| match line.strip_prefix('/') {
            Some(rooted) => path == Path::new(rooted.trim_end_matches('/')),
            None => path.ends_with(line.trim_end_matches('/')),
        })
    };
    let mut sources = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            let name = path.to_str().unwrap();
            let kind = entry.file_type().unwrap();
            if is_ignored(&path) || NOT_OURS.contains(&name) {
                continue;
            } else if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && is_text(&path) {
                sources.push(Source::new(name, &fs::read_to_string(entry.path()).unwrap()));
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn is_text(path: &Path) -> bool {
    match path.extension() {
        Some(ending) => TEXT.iter().any(|&text| ending == text),
        None => path.ends_with("Makefile") || path.ends_with(".ci/run"),
    }
}

#[test]
fn the_house_is_tidy() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    let of = |path: &str| sources.iter().any(|source| source.path == path);
    for path in ["Cargo.toml", ".ci/run", "Makefile", "scripts/setup.sh", "tests/tests/tidy.rs"] {
        assert!(of(path), "{path} was not looked at");
    }
    let findings: Vec<String> = sources
        .iter()
        .flat_map(|source| CHECKS.iter().flat_map(move |check| check(source)))
        .map(|finding| format!("{}:{}: {}", finding.path, finding.line, finding.what))
        .collect();
    assert!(findings.is_empty(), "{} findings\n{}", findings.len(), findings.join("\n"));
}

/// The lines in which `check` finds something in `text`.
fn lines_found(check: fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
    check(&Source::new(path, text)).iter().map(|finding| finding.line).collect()
}

#[test]
fn comments_strings_and_characters_are_no_code() {
    let text = r##"a /* b /* c */ d */ e // f
"g \" h" i r#"j " k"# l b'm' '\'' 'n' &'o p b"q" br"r\" s
r"t
u" v"##;
    let words: Vec<String> = blank(text).split_whitespace().map(str::to_string).collect();
    assert_eq!(words, ["a", "e", "i", "l", "b", "&'o", "p", "s", "v"]);
    assert_eq!(blank(text).lines().count(), text.lines().count());
}

#[test]
fn a_file_above_500_lines_is_found_and_its_tests_are_not_counted() {
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    // test\n".repeat(600));
    let fits = "// line\n".repeat(500) + &tests;
    assert_eq!(lines_found(check_sizes, "pipeline/src/a.rs", &fits), []);
    assert_eq!(lines_found(check_sizes, "tests/tests/a.rs", &"// line\n".repeat(501)), []);
    let code_after_tests = tests + &"// line\n".repeat(501);
    assert_eq!(lines_found(check_sizes, "pipeline/src/a.rs", &code_after_tests), [1]);
}

#[test]
fn a_line_above_100_columns_is_found_where_it_is_no_prose_and_no_address() {
    let wide = "é".repeat(101);
    assert_eq!(lines_found(check_sizes, "a.toml", &format!("#\n{wide}\n")), [2]);
    assert_eq!(lines_found(check_sizes, "a.md", &wide), []);
    assert_eq!(lines_found(check_sizes, "a.rs", &format!("// https://{wide}")), []);
    assert_eq!(lines_found(check_sizes, "a.rs", &"é".repeat(100)), []);
}

#[test]
fn a_document_above_its_limit_is_found() {
    assert_eq!(lines_found(check_sizes, "README.md", &"line\n".repeat(181)), [1]);
    assert_eq!(lines_found(check_sizes, "README.md", &"line\n".repeat(180)), []);
    assert_eq!(lines_found(check_sizes, "ARCHITECTURE.md", &"line\n".repeat(301)), [1]);
}

#[test]
fn a_function_above_70_lines_is_found_with_its_name() {
    let function = |num_inner| {
        let inner = "    let brace = \"}\"; // }\n".repeat(num_inner);
        format!(
            "trait T {{\n    fn declared(a: [u8; 2]);\n}}\nfn long() -> [u8; 2] {{\n{inner}}}\n"
        )
    };
    assert_eq!(lines_found(check_functions, "a.rs", &function(68)), []);
    let findings = check_functions(&Source::new("a.rs", &function(69)));
    assert_eq!(findings[0].line, 4);
    assert_eq!(findings[0].what, "`long` has 71 lines, above the limit of 70");
}

#[test]
fn unsafe_outside_its_files_is_found() {
    let text = "// unsafe\n#![deny(unsafe_op_in_unsafe_fn)]\nlet x = unsafe { y() };\n";
    assert_eq!(lines_found(check_unsafe, "pipeline/src/prep/part.rs", text), [3]);
    assert_eq!(lines_found(check_unsafe, "pipeline/src/image/simd.rs", text), []);
    assert_eq!(lines_found(check_unsafe, "trainer/shim/streams.rs", text), []);
}

#[test]
fn a_library_that_speaks_to_the_terminal_or_the_environment_is_found() {
    let text = "use clap::Parser;\nlet a = std::env::var(\"A\");\neprintln!(\"a\");\n\
        io::stdout().lock();\nstd::process::exit(1);\nlet b = env!(\"B\");\n\
        #[cfg(test)]\nmod tests {\n    fn a() { println!(); }\n}\n";
    assert_eq!(lines_found(check_terminal, "trainer/src/train.rs", text), [1, 2, 3, 4, 5]);
    assert_eq!(lines_found(check_terminal, "trainer/src/cli.rs", text), []);
    assert_eq!(lines_found(check_terminal, "pipeline/src/cli/labels.rs", text), []);
    assert_eq!(lines_found(check_terminal, "trainer/src/bin/catlip-train.rs", text), []);
    assert_eq!(lines_found(check_terminal, "trainer/build.rs", text), []);
}

#[test]
fn a_panic_on_data_is_found_outside_of_tests() {
    let text = "a.unwrap();\nb.expect(\"b\");\nc.unwrap_or(1);\n#[expect(dead_code)]\n\
        #[cfg(test)]\nmod tests {\n    fn a() { b.unwrap(); }\n}\nd.unwrap();\n";
    assert_eq!(lines_found(check_panics, "schemas/src/a.rs", text), [1, 2, 9]);
    assert_eq!(lines_found(check_panics, "tests/tests/a.rs", text), []);
}

#[test]
fn what_is_compiled_for_tests_only_is_a_test_and_what_is_not_is_none() {
    let text = "#[cfg(all(test, not(loom)))]\n#[expect(dead_code)]\nmod tests {\n}\na.unwrap();\n\
        #[cfg(not(test))]\nfn b() { c.unwrap(); }\n#[cfg(test)]\nmod tests;\nd.unwrap();\n";
    let source = Source::new("trainer/src/a.rs", text);
    let is_test = [true, true, true, true, false, false, false, true, false, false];
    assert_eq!(source.is_test, is_test);
    assert_eq!(lines_found(check_panics, "trainer/src/a.rs", text), [5, 7, 10]);
}

#[test]
fn an_allow_is_found() {
    let text = "#[allow(dead_code)]\n#![allow(dead_code)]\n// #[allow(dead_code)]\n";
    assert_eq!(lines_found(check_attributes, "a.rs", text), [1, 2]);
}

#[test]
fn async_outside_its_file_is_found() {
    let text = "async fn a() {}\n// async\n";
    assert_eq!(lines_found(check_async, "pipeline/src/source/tar.rs", text), [1]);
    assert_eq!(lines_found(check_async, ASYNC_FILES[0], text), []);
}

#[test]
fn tch_before_the_trainer_is_found() {
    assert_eq!(lines_found(check_tch, "pipeline/src/a.rs", "use tch::Tensor;\n// tch\n"), [1]);
    assert_eq!(lines_found(check_tch, "schemas/Cargo.toml", "tch.workspace = true\n"), [1]);
    assert_eq!(lines_found(check_tch, "pipeline/src/a.rs", "let batch = fetch();\n"), []);
    assert_eq!(lines_found(check_tch, "trainer/src/a.rs", "use tch::Tensor;\n"), []);
}

#[test]
fn a_folder_or_file_whose_name_says_nothing_is_found() {
    assert_eq!(lines_found(check_folders, "pipeline/src/utils/a.rs", ""), [1]);
    assert_eq!(lines_found(check_folders, "trainer/src/helpers.rs", ""), [1]);
    assert_eq!(lines_found(check_folders, "trainer/src/core_types.rs", ""), []);
}

#[test]
fn text_of_one_machine_is_found() {
    let word = [FORBIDDEN_WORD.0, FORBIDDEN_WORD.1].concat();
    let path = [FORBIDDEN[0].0, FORBIDDEN[0].1].concat();
    let text = format!("a {word} b\nthe onnx {word}\n{path}a\nob{word}\nTwo {word}s.\n");
    assert_eq!(lines_found(check_words, "a.md", &text), [1, 3, 5]);
}

#[test]
fn a_dependency_without_a_comment_is_found() {
    let text = "[workspace.dependencies]\nours = { path = \"ours\" }\n# Why.\na = \"1\"\n\
        b = \"1\"\nc = \"1\" # Why.\n[profile.release]\ndebug = true\n";
    assert_eq!(lines_found(check_dependencies, "Cargo.toml", text), [5]);
    assert_eq!(lines_found(check_dependencies, "pipeline/Cargo.toml", text), []);
}
