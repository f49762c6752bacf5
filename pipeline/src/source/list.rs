//! What the user named, expanded to a list of shards.
//!
//! In: file names, globs (`*.tar`), brace ranges and choices (`train-{00000..00099}.tar`,
//! `{a,b}.tar`) and `@list.txt`, one name a line. Out: the shards in order, each with its path
//! relative to the input root. Never: a shard twice; a name that silently matches nothing.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// Limit of a shard list. 10^7 paths of 100 bytes are 1 GB; LAION-5B has 5 · 10^5 shards.
pub const SHARDS_MAX: usize = 10_000_000;

/// One tar file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardUrl {
    /// Where it is opened.
    pub path: PathBuf,
    /// Its path relative to the input root, with `/`: what sample ids are made of.
    pub name: String,
}

/// The shards of a job in order; the position of a shard is the number of its part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardList(pub Vec<ShardUrl>);

/// What is wrong with the input as a whole.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A brace that is not closed, or holds neither a range nor a choice.
    #[error("`{input}`: {message}")]
    Pattern {
        /// As the user wrote it.
        input: String,
        /// What is wrong with it.
        message: String,
    },
    /// A name that matches no file.
    #[error("`{input}` matches no file (tried {tried})")]
    NoMatch {
        /// As the user wrote it.
        input: String,
        /// The first path that was tried.
        tried: String,
    },
    /// A file of the list cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// A shard that the input names twice.
    #[error("{name} is named twice, as input {first} and {second}: its samples would come twice")]
    Twice {
        /// Relative path of the shard.
        name: String,
        /// Position of the first, from 0.
        first: usize,
        /// Position of the second.
        second: usize,
    },
    /// A shard outside the input root.
    #[error("{path} is not below the input root {root}")]
    OutsideRoot {
        /// The shard.
        path: PathBuf,
        /// `source.root`.
        root: PathBuf,
    },
    /// A path whose relative name is not UTF-8.
    #[error("the path {path} is not UTF-8")]
    PathNotUtf8 {
        /// The path, lossily.
        path: String,
    },
    /// More shards than the limit.
    #[error("the input names more than {limit} shards")]
    TooMany {
        /// [`SHARDS_MAX`].
        limit: usize,
    },
    /// A scheme that is not read.
    #[error("`{input}`: this version reads local files; `{scheme}://` is not read yet")]
    Scheme {
        /// As the user wrote it.
        input: String,
        /// The scheme.
        scheme: String,
    },
}

impl ShardList {
    /// Expands `inputs` in order.
    ///
    /// The input root is `root` if given, else the longest folder that all shards share.
    ///
    /// # Errors
    ///
    /// A [`SourceError`] for a name that matches nothing, a shard named twice, or a bad pattern.
    pub fn expand(inputs: &[String], root: Option<&Path>) -> Result<Self, SourceError> {
        let mut paths = Vec::new();
        for input in inputs {
            expand_input(input, &mut paths)?;
        }
        let root = root.map_or_else(|| shared_folder(&paths), Path::to_path_buf);
        let mut seen = HashMap::new();
        let mut shards = Vec::with_capacity(paths.len());
        for (index, path) in paths.into_iter().enumerate() {
            let name = relative_name(&path, &root)?;
            if let Some(first) = seen.insert(name.clone(), index) {
                return Err(SourceError::Twice { name, first, second: index });
            }
            shards.push(ShardUrl { path, name });
        }
        Ok(Self(shards))
    }
}

fn expand_input(input: &str, paths: &mut Vec<PathBuf>) -> Result<(), SourceError> {
    if let Some(list) = input.strip_prefix('@') {
        let text = std::fs::read_to_string(list)
            .map_err(|source| SourceError::Unreadable { path: list.into(), source })?;
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            expand_pattern(line, paths)?;
        }
        return Ok(());
    }
    expand_pattern(input, paths)
}

fn expand_pattern(input: &str, paths: &mut Vec<PathBuf>) -> Result<(), SourceError> {
    let local = input.strip_prefix("file://").unwrap_or(input);
    if let Some((scheme, _)) = local.split_once("://") {
        return Err(SourceError::Scheme { input: input.into(), scheme: scheme.into() });
    }
    // A file of exactly this name wins, so names with `{`, `[` or `%` can be opened.
    if Path::new(local).is_file() {
        paths.push(local.into());
        return check_count(paths);
    }
    let mut names = Vec::new();
    expand_braces(input, local, &mut names)?;
    for name in &names {
        let before = paths.len();
        if name.contains(['*', '?', '[']) {
            expand_glob(input, name, paths)?;
        } else if Path::new(name).is_file() {
            paths.push(name.into());
        }
        if paths.len() == before {
            return Err(SourceError::NoMatch { input: input.into(), tried: name.clone() });
        }
        check_count(paths)?;
    }
    Ok(())
}

fn check_count(paths: &[PathBuf]) -> Result<(), SourceError> {
    if paths.len() > SHARDS_MAX {
        return Err(SourceError::TooMany { limit: SHARDS_MAX });
    }
    Ok(())
}

/// Glob results come sorted by name, so a list does not depend on the file system.
fn expand_glob(input: &str, name: &str, paths: &mut Vec<PathBuf>) -> Result<(), SourceError> {
    let wrong = |message: String| SourceError::Pattern { input: input.into(), message };
    for entry in glob::glob(name).map_err(|e| wrong(e.to_string()))? {
        let path = entry.map_err(|e| SourceError::Unreadable {
            path: e.path().to_path_buf(),
            source: e.into(),
        })?;
        if path.is_file() {
            paths.push(path);
        }
    }
    Ok(())
}

/// Expands the first brace and recurses on the rest; `{a,b}` and `{00..17}` with kept zeros.
fn expand_braces(input: &str, text: &str, names: &mut Vec<String>) -> Result<(), SourceError> {
    let wrong =
        |message: &str| SourceError::Pattern { input: input.into(), message: message.into() };
    let Some(open) = text.find('{') else {
        names.push(text.to_owned());
        return if names.len() > SHARDS_MAX {
            Err(SourceError::TooMany { limit: SHARDS_MAX })
        } else {
            Ok(())
        };
    };
    let close =
        text[open..].find('}').map(|at| open + at).ok_or_else(|| wrong("`{` without `}`"))?;
    let (head, inner, tail) = (&text[..open], &text[open + 1..close], &text[close + 1..]);
    if inner.contains('{') {
        return Err(wrong("braces inside braces are not read"));
    }
    if let Some((first, last)) = inner.split_once("..") {
        let number = |t: &str| t.parse::<u64>().map_err(|_| wrong("a range needs two numbers"));
        let (from, to) = (number(first)?, number(last)?);
        if from > to || to - from >= SHARDS_MAX as u64 {
            return Err(wrong("a range must rise and stay below 10,000,000 numbers"));
        }
        let width = if first.starts_with('0') || last.starts_with('0') { first.len() } else { 0 };
        for n in from..=to {
            expand_braces(input, &format!("{head}{n:0width$}{tail}"), names)?;
        }
        return Ok(());
    }
    if !inner.contains(',') {
        return Err(wrong("braces need a range `{00..17}` or a choice `{a,b}`"));
    }
    inner.split(',').try_for_each(|c| expand_braces(input, &format!("{head}{c}{tail}"), names))
}

/// The longest folder that holds all of `paths`.
fn shared_folder(paths: &[PathBuf]) -> PathBuf {
    let mut folders = paths.iter().map(|p| p.parent().unwrap_or(Path::new("")));
    let Some(first) = folders.next() else { return PathBuf::new() };
    let mut shared: Vec<Component<'_>> = first.components().collect();
    for folder in folders {
        let same = shared.iter().zip(folder.components()).take_while(|(a, b)| *a == b).count();
        shared.truncate(same);
    }
    shared.iter().collect()
}

fn relative_name(path: &Path, root: &Path) -> Result<String, SourceError> {
    let relative = path
        .strip_prefix(root)
        .map_err(|_| SourceError::OutsideRoot { path: path.into(), root: root.into() })?;
    let parts: Option<Vec<&str>> =
        relative.components().map(|part| part.as_os_str().to_str()).collect();
    parts
        .map(|names| names.join("/"))
        .ok_or_else(|| SourceError::PathNotUtf8 { path: path.to_string_lossy().into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
        dir
    }

    fn expand(dir: &tempfile::TempDir, inputs: &[&str]) -> Result<Vec<String>, SourceError> {
        let inputs: Vec<_> =
            inputs.iter().map(|i| dir.path().join(i).to_str().unwrap().to_owned()).collect();
        Ok(ShardList::expand(&inputs, None)?.0.into_iter().map(|s| s.name).collect())
    }

    #[test]
    fn a_range_keeps_its_zeros_and_order() {
        let dir = folder(&["t-08.tar", "t-09.tar", "t-10.tar"]);
        assert_eq!(
            expand(&dir, &["t-{08..10}.tar"]).unwrap(),
            ["t-08.tar", "t-09.tar", "t-10.tar"]
        );
    }

    #[test]
    fn a_gap_in_a_range_is_an_error_that_names_the_file() {
        let dir = folder(&["t-0.tar", "t-2.tar"]);
        let error = expand(&dir, &["t-{0..2}.tar"]).unwrap_err().to_string();
        assert!(error.contains("matches no file") && error.contains("t-1.tar"), "{error}");
    }

    #[test]
    fn names_are_relative_to_the_shared_folder() {
        let dir = folder(&["a/0.tar", "b/0.tar"]);
        assert_eq!(expand(&dir, &["{b,a}/*.tar"]).unwrap(), ["b/0.tar", "a/0.tar"]);
        assert_eq!(expand(&dir, &["a/*.tar"]).unwrap(), ["0.tar"]);
    }

    #[test]
    fn a_shard_named_twice_is_refused() {
        let dir = folder(&["0.tar"]);
        let error = expand(&dir, &["0.tar", "*.tar"]).unwrap_err();
        assert!(matches!(error, SourceError::Twice { first: 0, second: 1, .. }), "{error}");
    }

    #[test]
    fn a_file_with_braces_or_percent_in_its_name_is_opened_as_it_is() {
        let dir = folder(&["a{1}%20.tar"]);
        assert_eq!(expand(&dir, &["a{1}%20.tar"]).unwrap(), ["a{1}%20.tar"]);
    }

    #[test]
    fn a_list_file_holds_a_name_a_line() {
        let dir = folder(&["0.tar", "1.tar"]);
        let list = dir.path().join("list.txt");
        std::fs::write(&list, format!("# two\n{0}/1.tar\n\n{0}/0.tar\n", dir.path().display()))
            .unwrap();
        let shards = ShardList::expand(&[format!("@{}", list.display())], None).unwrap();
        assert_eq!(
            shards.0.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
            ["1.tar", "0.tar"]
        );
    }

    #[test]
    fn wrong_braces_are_named() {
        let dir = folder(&["0.tar"]);
        for (pattern, message) in [
            ("{0..1.tar", "`{` without `}`"),
            ("{x}.tar", "braces need"),
            ("{a..b}.tar", "two numbers"),
            ("{9..1}.tar", "must rise"),
        ] {
            let error = expand(&dir, &[pattern]).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_store_is_refused_by_name() {
        let error = ShardList::expand(&["s3://bucket/0.tar".to_owned()], None).unwrap_err();
        assert!(matches!(error, SourceError::Scheme { scheme, .. } if scheme == "s3"));
    }
}
