//! What the user named, expanded to a list of shards.
//!
//! In: file names and URLs, globs (`*.tar`), brace ranges and choices (`train-{00000..00099}.tar`,
//! `{a,b}.tar`), folders (`s3://bucket/dir/`) and `@list.txt`, one name a line, itself a file or a
//! URL. Out: the shards in order, each with its path relative to the input root. Never: a shard
//! twice; a name that silently matches nothing.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::byte_order_mark::text_without_mark;
use super::object::Remote;
use super::remote_list::RemoteNames;
use super::store::{ObjectInfo, RemoteUrl, StoreError};

/// Limit of a shard list. 10^7 paths of 100 bytes are 1 GB; LAION-5B has 5 · 10^5 shards.
pub const SHARDS_MAX: usize = 10_000_000;

/// Endings by which a folder's shards are told from other files.
pub const SHARD_ENDINGS: [&str; 5] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.zstd"];

/// Where a shard lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardPlace {
    /// A file.
    Local(PathBuf),
    /// An object of a store, as it was when the list was made.
    Remote(RemoteUrl, ObjectInfo),
}

/// One tar file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardUrl {
    /// Where it is opened.
    pub place: ShardPlace,
    /// Its path relative to the input root, with `/`: what sample ids are made of.
    pub name: String,
}

impl ShardUrl {
    /// Its path or URL, for messages.
    pub fn path(&self) -> PathBuf {
        match &self.place {
            ShardPlace::Local(path) => path.clone(),
            ShardPlace::Remote(url, _) => url.to_string().into(),
        }
    }
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
    /// A list that names nothing: a job over it would do nothing and call that success.
    #[error("the list {list} names no shard: it has 0 lines that are neither empty nor comments")]
    EmptyList {
        /// Its path or URL.
        list: String,
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
    /// A store that cannot be listed or read.
    #[error("the input cannot be listed")]
    Store(#[from] StoreError),
    /// Local files and objects of stores in one list, or a root of the other kind.
    #[error("{local} is a local path and {remote} a URL: one job reads one of the two")]
    Mixed {
        /// The first local path.
        local: String,
        /// The first URL.
        remote: String,
    },
    /// A URL where only files are read.
    #[error("`{input}` is a URL, and only local files are read here")]
    NotLocal {
        /// As the user wrote it.
        input: String,
    },
}

impl ShardList {
    /// Expands `inputs`, all of them local, in order.
    ///
    /// The input root is `root` if given, else the longest folder that all shards share.
    ///
    /// # Errors
    ///
    /// A [`SourceError`] for a name that matches nothing, a shard named twice, or a bad pattern.
    pub fn expand(inputs: &[String], root: Option<&Path>) -> Result<Self, SourceError> {
        let root = root.map(|root| root.to_string_lossy().into_owned());
        Self::expand_all(inputs, root.as_deref(), None)
    }

    /// Expands `inputs`, files or URLs, in order; `root` is a folder or a URL.
    ///
    /// # Errors
    ///
    /// As of [`ShardList::expand`], and what a store says.
    pub fn expand_with(
        inputs: &[String],
        root: Option<&str>,
        remote: &Remote,
    ) -> Result<Self, SourceError> {
        Self::expand_all(inputs, root, Some(remote))
    }

    fn expand_all(
        inputs: &[String],
        root: Option<&str>,
        remote: Option<&Remote>,
    ) -> Result<Self, SourceError> {
        let mut names = Vec::new();
        for input in inputs {
            expand_input(input, remote, &mut names)?;
        }
        let mut places = Vec::new();
        let remote_names = RemoteNames::look_up(&names, remote)?;
        for (input, name) in &names {
            match RemoteUrl::parse(name)? {
                Some(url) => places.extend(remote_names.places(input, &url)?),
                None => expand_local(input, name, &mut places)?,
            }
            if places.len() > SHARDS_MAX {
                return Err(SourceError::TooMany { limit: SHARDS_MAX });
            }
        }
        let mut seen = HashMap::new();
        let mut shards = Vec::with_capacity(places.len());
        let short_names = relative_names(&places, root)?;
        for (index, (place, name)) in places.into_iter().zip(short_names).enumerate() {
            if let Some(first) = seen.insert(name.clone(), index) {
                return Err(SourceError::Twice { name, first, second: index });
            }
            shards.push(ShardUrl { place, name });
        }
        Ok(Self(shards))
    }
}

/// A name that may still hold a glob, with the input that it stems from.
type NamedBy = (String, String);

fn expand_input(
    input: &str,
    remote: Option<&Remote>,
    names: &mut Vec<NamedBy>,
) -> Result<(), SourceError> {
    let Some(list) = input.strip_prefix('@') else { return expand_pattern(input, names) };
    let text = match (RemoteUrl::parse(list)?, remote) {
        (None, _) => std::fs::read_to_string(list)
            .map_err(|source| SourceError::Unreadable { path: list.into(), source })?,
        (Some(_), None) => return Err(SourceError::NotLocal { input: input.to_owned() }),
        (Some(url), Some(remote)) => super::remote_list::text(&url, remote)?,
    };
    let lines = text_without_mark(&text).lines().map(str::trim);
    let mut lines = lines.filter(|l| !l.is_empty() && !l.starts_with('#')).peekable();
    if lines.peek().is_none() {
        return Err(SourceError::EmptyList { list: list.to_owned() });
    }
    lines.try_for_each(|line| expand_pattern(line, names))
}

fn expand_pattern(input: &str, names: &mut Vec<NamedBy>) -> Result<(), SourceError> {
    let local = input.strip_prefix("file://").unwrap_or(input);
    // A file of exactly this name wins, so names with `{`, `[` or `%` can be opened.
    if Path::new(local).is_file() {
        names.push((input.to_owned(), local.to_owned()));
        return Ok(());
    }
    let mut all = Vec::new();
    expand_braces(input, local, &mut all)?;
    names.extend(all.into_iter().map(|name| (input.to_owned(), name)));
    Ok(())
}

/// Whether a name is one that matches several.
pub fn is_glob(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// Whether a file of a folder is a shard, by its name.
pub fn is_shard_name(name: &str) -> bool {
    let base = name.rsplit('/').next().unwrap_or(name);
    !base.starts_with('.') && SHARD_ENDINGS.iter().any(|ending| base.ends_with(ending))
}

fn expand_local(input: &str, name: &str, places: &mut Vec<ShardPlace>) -> Result<(), SourceError> {
    let before = places.len();
    let path = Path::new(name);
    if path.is_file() {
        places.push(ShardPlace::Local(path.into()));
    } else if path.is_dir() {
        let mut paths = Vec::new();
        walk(path, &mut paths)?;
        paths.sort();
        places.extend(paths.into_iter().map(ShardPlace::Local));
    } else if is_glob(name) {
        expand_glob(input, name, places)?;
    }
    if places.len() == before {
        return Err(SourceError::NoMatch { input: input.into(), tried: name.to_owned() });
    }
    Ok(())
}

/// The shards in a folder and those below it.
fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<(), SourceError> {
    let wrong = |source| SourceError::Unreadable { path: folder.into(), source };
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        if path.is_dir() {
            walk(&path, paths)?;
        } else if is_shard_name(&path.to_string_lossy()) {
            paths.push(path);
        }
    }
    Ok(())
}

/// Glob results come sorted by name, so a list does not depend on the file system.
fn expand_glob(input: &str, name: &str, places: &mut Vec<ShardPlace>) -> Result<(), SourceError> {
    let wrong = |message: String| SourceError::Pattern { input: input.into(), message };
    for entry in glob::glob(name).map_err(|e| wrong(e.to_string()))? {
        let path = entry.map_err(|e| SourceError::Unreadable {
            path: e.path().to_path_buf(),
            source: e.into(),
        })?;
        if path.is_file() {
            places.push(ShardPlace::Local(path));
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

/// The names of all shards relative to the root, or to the folder that they share.
fn relative_names(places: &[ShardPlace], root: Option<&str>) -> Result<Vec<String>, SourceError> {
    let mut paths = Vec::new();
    let mut urls = Vec::new();
    for place in places {
        match place {
            ShardPlace::Local(path) => paths.push(path.as_path()),
            ShardPlace::Remote(url, _) => urls.push(url.to_string()),
        }
    }
    let mixed = |local: &str, remote: &str| {
        Err(SourceError::Mixed { local: local.to_owned(), remote: remote.to_owned() })
    };
    match (paths.first(), urls.first(), root) {
        (Some(path), Some(url), _) => mixed(&path.to_string_lossy(), url),
        (Some(path), None, Some(root)) if root.contains("://") => {
            mixed(&path.to_string_lossy(), root)
        }
        (None, Some(url), Some(root)) if !root.contains("://") => mixed(root, url),
        (None, Some(_), _) => relative_urls(&urls, root),
        (_, None, _) => {
            let root = root.map_or_else(|| shared_folder(&paths), PathBuf::from);
            paths.iter().map(|path| relative_name(path, &root)).collect()
        }
    }
}

/// As [`relative_name`], by the parts of URLs; two buckets share the folder `s3://`.
fn relative_urls(urls: &[String], root: Option<&str>) -> Result<Vec<String>, SourceError> {
    let folder_of = |url: &str| url.rsplit_once('/').map_or(0, |(folder, _)| folder.len() + 1);
    let shared = || {
        let first = urls.first().map_or("", String::as_str);
        let mut shared = folder_of(first);
        for url in urls {
            let same = first.bytes().zip(url.bytes()).take_while(|(a, b)| a == b).count();
            // A byte of `/` is never inside another character.
            let slash = first.as_bytes()[..same].iter().rposition(|&byte| byte == b'/');
            shared = shared.min(slash.map_or(0, |slash| slash + 1));
        }
        first[..shared].to_owned()
    };
    let root = root.map_or_else(shared, |root| format!("{}/", root.trim_end_matches('/')));
    let name = |url: &String| {
        url.strip_prefix(&root)
            .map(str::to_owned)
            .ok_or_else(|| SourceError::OutsideRoot { path: url.into(), root: (&root).into() })
    };
    urls.iter().map(name).collect()
}

/// The longest folder that holds all of `paths`.
fn shared_folder(paths: &[&Path]) -> PathBuf {
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
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.into());
    let below = |path: &Path, root: &Path| path.strip_prefix(root).ok().map(Path::to_path_buf);
    let relative = below(path, root)
        // One may be relative to the current folder and the other not.
        .or_else(|| below(&whole(path), &whole(root)))
        .ok_or_else(|| SourceError::OutsideRoot { path: path.into(), root: root.into() })?;
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
    fn a_root_and_a_shard_need_not_both_be_relative() {
        let here = std::env::current_dir().unwrap();
        let name = |path: &str, root: &str| relative_name(Path::new(path), Path::new(root));
        let whole = here.join("shards");
        let whole = whole.to_str().unwrap();
        assert_eq!(name("shards/a.tar", whole).unwrap(), "a.tar");
        assert_eq!(name(&format!("{whole}/b/a.tar"), "shards").unwrap(), "b/a.tar");
        assert!(matches!(name("other/a.tar", whole), Err(SourceError::OutsideRoot { .. })));
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
    fn a_list_that_names_nothing_is_refused_and_a_mark_before_its_first_line_is_none_of_it() {
        let dir = folder(&["0.tar"]);
        let list = dir.path().join("list.txt");
        let read = |text: &str| {
            std::fs::write(&list, text).unwrap();
            ShardList::expand(&[format!("@{}", list.display())], None)
        };
        for text in ["", "\n \n", "# none yet\n", "\u{feff}# none\n"] {
            let error = read(text).unwrap_err();
            assert!(matches!(&error, SourceError::EmptyList { .. }), "{error}");
            assert!(error.to_string().contains("list.txt names no shard"), "{error}");
        }
        let shards = read(&format!("\u{feff}{}/0.tar\r\n", dir.path().display())).unwrap();
        assert_eq!(shards.0[0].name, "0.tar");
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
        assert!(matches!(error, SourceError::NotLocal { .. }), "{error}");
    }

    #[test]
    fn a_folder_is_its_shards_and_those_below() {
        let dir = folder(&["d/b.tar", "d/a/1.tar.gz", "d/a/2.tgz", "d/README", "d/.c.tar"]);
        assert_eq!(expand(&dir, &["d/"]).unwrap(), ["a/1.tar.gz", "a/2.tgz", "b.tar"]);
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        assert!(matches!(expand(&dir, &["empty"]).unwrap_err(), SourceError::NoMatch { .. }));
    }

    fn remote(urls: &[&str], root: Option<&str>) -> Result<Vec<String>, SourceError> {
        let info = ObjectInfo { bytes: 1, etag: None, modified_secs: 0 };
        let place = |url: &&str| match RemoteUrl::parse(url).unwrap() {
            Some(url) => ShardPlace::Remote(url, info.clone()),
            None => ShardPlace::Local(url.into()),
        };
        relative_names(&urls.iter().map(place).collect::<Vec<_>>(), root)
    }

    #[test]
    fn names_of_urls_are_relative_to_what_they_share() {
        assert_eq!(remote(&["s3://b/d/0.tar"], None).unwrap(), ["0.tar"]);
        let two = ["s3://b/d/x/0.tar", "s3://b/d/xy/0.tar"];
        assert_eq!(remote(&two, None).unwrap(), ["x/0.tar", "xy/0.tar"]);
        assert_eq!(remote(&two, Some("s3://b")).unwrap(), ["d/x/0.tar", "d/xy/0.tar"]);
        // The same name in two buckets is two shards.
        let buckets = ["s3://A/t/0.tar", "s3://B/t/0.tar"];
        assert_eq!(remote(&buckets, None).unwrap(), ["A/t/0.tar", "B/t/0.tar"]);
        assert!(matches!(remote(&two, Some("s3://c")), Err(SourceError::OutsideRoot { .. })));
    }

    #[test]
    fn files_and_urls_are_not_mixed() {
        for (urls, root) in [
            (&["s3://b/0.tar", "a/0.tar"][..], None),
            (&["s3://b/0.tar"], Some("/data")),
            (&["a/0.tar"], Some("s3://b")),
        ] {
            assert!(matches!(remote(urls, root), Err(SourceError::Mixed { .. })), "{urls:?}");
        }
    }
}
