//! A small writer of bbolt databases, and what is read from them.

#![allow(clippy::as_conversions, clippy::cast_possible_truncation, reason = "tests")]

use std::{io::Write as _, path::Path};

use proptest::prelude::*;
use prost::Message as _;
use tempfile::NamedTempFile;

use super::{bbolt::fnv1a, revisions::KeyValue, *};

/// A database that is written page by page.
struct Writer {
    page_size: usize,
    bytes: Vec<u8>,
}

type Entries = Vec<(u32, Vec<u8>, Vec<u8>)>;

impl Writer {
    fn new(page_size: usize) -> Self {
        // Two meta pages, and the list of free pages.
        Self { page_size, bytes: vec![0; 3 * page_size] }
    }

    fn page(&mut self, flags: u16, count: usize, content: &[u8]) -> u64 {
        let id = self.bytes.len() / self.page_size;
        let pages = (16 + content.len()).div_ceil(self.page_size).max(1);
        let header = header(id as u64, flags, count as u16, pages as u32 - 1);
        let mut page = [&header[..], content].concat();
        page.resize(pages * self.page_size, 0);
        self.bytes.extend(page);
        id as u64
    }

    fn leaf(&mut self, entries: &Entries) -> u64 {
        self.page(2, entries.len(), &leaf(entries))
    }

    fn branch(&mut self, children: &[(Vec<u8>, u64)]) -> u64 {
        let (mut heads, mut keys) = (Vec::new(), Vec::<u8>::new());
        for (index, (key, page)) in children.iter().enumerate() {
            heads.extend(((16 * (children.len() - index) + keys.len()) as u32).to_le_bytes());
            heads.extend((key.len() as u32).to_le_bytes());
            heads.extend(page.to_le_bytes());
            keys.extend(key);
        }
        heads.extend(keys);
        self.page(1, children.len(), &heads)
    }

    fn finish(mut self, root: u64) -> Vec<u8> {
        let pages = (self.bytes.len() / self.page_size) as u64;
        for transaction in [6_u64, 7] {
            let is_older = transaction == 6;
            let mut meta = Vec::new();
            for word in [0xED0C_DAED, 2, self.page_size as u32, 0] {
                meta.extend(word.to_le_bytes());
            }
            // The older meta page names a root that must not be read.
            for word in [if is_older { 999 } else { root }, 0, 2, pages, transaction] {
                meta.extend(word.to_le_bytes());
            }
            meta.extend(fnv1a(&meta).to_le_bytes());
            let at = if is_older { 0 } else { self.page_size };
            let page = [&header(at as u64, 4, 0, 0)[..], &meta].concat();
            self.bytes[at..at + page.len()].copy_from_slice(&page);
        }
        self.bytes
    }
}

fn header(id: u64, flags: u16, count: u16, overflow: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[..8].copy_from_slice(&id.to_le_bytes());
    header[8..10].copy_from_slice(&flags.to_le_bytes());
    header[10..12].copy_from_slice(&count.to_le_bytes());
    header[12..].copy_from_slice(&overflow.to_le_bytes());
    header
}

fn leaf(entries: &Entries) -> Vec<u8> {
    let (mut heads, mut data) = (Vec::new(), Vec::new());
    for (index, (flags, key, value)) in entries.iter().enumerate() {
        let position = 16 * (entries.len() - index) + data.len();
        for word in [*flags, position as u32, key.len() as u32, value.len() as u32] {
            heads.extend(word.to_le_bytes());
        }
        data.extend([&key[..], value].concat());
    }
    heads.extend(data);
    heads
}

/// A write of the key with the value, or a deletion.
pub(crate) type Write<'a> = (&'a str, Option<&'a [u8]>);

fn revisions(writes: &[Write<'_>]) -> Entries {
    let write = |(index, (key, value)): (usize, &Write<'_>)| {
        let mut revision = (index as u64 + 2).to_be_bytes().to_vec();
        revision.push(b'_');
        revision.extend(0_u64.to_be_bytes());
        if value.is_none() {
            revision.push(b't');
        }
        let value = value.unwrap_or_default().to_vec().into();
        let stored = KeyValue { key: key.as_bytes().to_vec().into(), value };
        (0, revision, stored.encode_to_vec())
    };
    writes.iter().enumerate().map(write).collect()
}

/// Returns a database with these writes, `width` to a leaf.
pub(crate) fn database(page_size: usize, width: usize, writes: &[Write<'_>]) -> Vec<u8> {
    let mut pages = Writer::new(page_size);
    let mut level: Vec<_> = revisions(writes)
        .chunks(width)
        .map(|chunk| (chunk[0].1.clone(), pages.leaf(&chunk.to_vec())))
        .collect();
    while level.len() > 1 {
        level = level
            .chunks(width.max(2))
            .map(|chunk| (chunk[0].0.clone(), pages.branch(chunk)))
            .collect();
    }
    let bucket = [level[0].1.to_le_bytes(), [0; 8]].concat();
    let root = pages.leaf(&vec![
        (1, b"alarm".to_vec(), [&[0; 16], &header(0, 2, 0, 0)[..]].concat()),
        (1, b"key".to_vec(), bucket),
        (1, b"meta".to_vec(), [&[0; 16], &header(0, 2, 0, 0)[..]].concat()),
    ]);
    pages.finish(root)
}

fn with_digest(mut bytes: Vec<u8>) -> Vec<u8> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    bytes.extend(digest.as_ref());
    bytes
}

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Returns all keys and values, the newest first.
async fn read(bytes: &[u8], prefix: &str) -> Result<Vec<(String, Vec<u8>)>, Problem> {
    let file = file(bytes);
    let mut objects = SnapshotFile::open(file.path()).await?.objects(prefix.as_bytes()).await?;
    let mut all = Vec::new();
    while let Some(page) = objects.next_page().await? {
        assert!(!page.is_empty());
        all.extend(page.into_iter().map(|object| {
            (String::from_utf8(object.key.to_vec()).unwrap(), object.value.to_vec())
        }));
    }
    assert_eq!(objects.next_page().await, Ok(None));
    Ok(all)
}

async fn problem(bytes: &[u8]) -> Problem {
    read(bytes, "").await.unwrap_err()
}

/// Two keys, of which one was overwritten and one deleted, and one that was deleted and made again.
const WRITES: [Write<'_>; 7] = [
    ("/registry/secrets/a", Some(b"old")),
    ("/registry/secrets/gone", Some(b"gone")),
    ("/registry/secrets/again", Some(b"first")),
    ("/registry/secrets/again", None),
    ("/registry/secrets/a", Some(b"new")),
    ("/registry/secrets/gone", None),
    ("/registry/secrets/again", Some(b"second")),
];

#[tokio::test]
async fn returns_the_newest_value_of_each_key_once() {
    for page_size in [512, 1024, 4096, 16384, 65536] {
        for width in [1, 2, 7] {
            let read = read(&database(page_size, width, &WRITES), "/registry/").await.unwrap();
            assert_eq!(
                read,
                [
                    ("/registry/secrets/again".to_owned(), b"second".to_vec()),
                    ("/registry/secrets/a".to_owned(), b"new".to_vec()),
                ],
                "pages of {page_size} bytes, {width} writes in each leaf"
            );
        }
    }
}

#[tokio::test]
async fn reads_a_value_over_several_pages_and_skips_other_prefixes() {
    let large = vec![b'x'; 100_000];
    let writes: &[Write<'_>] = &[
        ("/registry/secrets/a", Some(&large)),
        ("/other/b", Some(b"b")),
        ("compact_rev_key", Some(b"1")),
    ];
    let bytes = database(4096, 2, writes);
    assert_eq!(
        read(&bytes, "/registry/").await.unwrap(),
        [("/registry/secrets/a".to_owned(), large)]
    );
    assert_eq!(read(&bytes, "").await.unwrap().len(), 3);
    assert_eq!(read(&bytes, "/nothing/").await.unwrap(), []);
}

#[tokio::test]
async fn pages_of_many_objects_have_bounds() {
    let names: Vec<_> = (0..2500).map(|number| format!("/registry/secrets/{number:05}")).collect();
    let writes: Vec<Write<'_>> =
        names.iter().map(|name| (name.as_str(), Some(&b"v"[..]))).collect();
    let file = file(&database(4096, 40, &writes));
    let mut objects = SnapshotFile::open(file.path()).await.unwrap().objects(b"/").await.unwrap();
    assert_eq!(objects.revision(), 2501);
    let mut sizes = Vec::new();
    while let Some(page) = objects.next_page().await.unwrap() {
        sizes.push(page.len());
    }
    assert_eq!(sizes, [1000, 1000, 500]);
}

#[tokio::test]
async fn says_whether_the_digest_fits() {
    let bytes = database(4096, 2, &WRITES);
    let signed = with_digest(bytes.clone());
    let mut flipped = signed.clone();
    flipped[3 * 4096 + 99] ^= 1;
    for (bytes, digest) in
        [(&bytes, Digest::Absent), (&signed, Digest::Fits), (&flipped, Digest::Differs)]
    {
        let file = file(bytes);
        let opened = SnapshotFile::open(file.path()).await.unwrap();
        assert_eq!(opened.facts().digest, digest);
        assert_eq!(opened.facts().size, bytes.len() as u64);
        assert_eq!(opened.facts().sha256.len(), 64);
    }
    assert_eq!(read(&signed, "").await.unwrap(), read(&bytes, "").await.unwrap());
    let problem = problem(&flipped).await;
    assert_eq!(problem.code, "snapshot-damaged");
    assert!(problem.cause.contains("SHA-256"), "{problem}");
}

#[tokio::test]
async fn uses_the_other_meta_page_when_one_is_damaged() {
    let mut bytes = database(16384, 2, &WRITES);
    bytes[20] ^= 1;
    assert_eq!(read(&bytes, "").await.unwrap().len(), 2, "the first one is the older one");
    bytes[16384 + 20] ^= 1;
    assert!(problem(&bytes).await.cause.contains("meta pages"));
}

#[tokio::test]
async fn a_cut_file_is_damaged() {
    let whole = database(4096, 2, &WRITES).len();
    let bytes = with_digest(database(4096, 2, &WRITES));
    for length in (0..whole).step_by(512).flat_map(|at| [at, at + 32, at + 100]).chain([whole + 31])
    {
        let problem = problem(&bytes[..length]).await;
        assert_eq!(problem.code, "snapshot-damaged", "{length} bytes: {problem}");
    }
}

/// k3s and RKE compress snapshots.
#[tokio::test]
async fn a_compressed_file_is_named() {
    for (begin, format) in [(&b"PK\x03\x04"[..], "zip"), (b"\x1f\x8b\x08\0", "gzip")] {
        let problem = problem(&[begin, &[7; 700]].concat()).await;
        assert!(problem.cause.contains(format), "{problem}");
    }
}

/// etcd-io/etcd#16809: the file was read before its digest was written.
#[tokio::test]
async fn a_digest_of_zeros_does_not_fit() {
    let bytes = [database(4096, 2, &WRITES), vec![0; 32]].concat();
    assert!(problem(&bytes).await.cause.contains("SHA-256"));
}

#[tokio::test]
async fn structures_that_never_end_are_damaged() {
    // A branch that names itself.
    let mut writer = Writer::new(4096);
    let own = writer.branch(&[(b"k".to_vec(), 3)]);
    assert!(problem(&writer.finish(own)).await.cause.contains("levels"));

    // A branch that names one leaf many times.
    let mut writer = Writer::new(4096);
    let leaf = writer.leaf(&revisions(&WRITES));
    let branch = writer.branch(&vec![(b"k".to_vec(), leaf); 100]);
    let root = writer.leaf(&vec![(1, b"key".to_vec(), [branch.to_le_bytes(), [0; 8]].concat())]);
    assert!(problem(&writer.finish(root)).await.cause.contains("order"));

    // Branches that name an empty leaf.
    let mut writer = Writer::new(4096);
    let mut page = writer.leaf(&Vec::new());
    for _ in 0..20 {
        page = writer.branch(&vec![(b"k".to_vec(), page); 100]);
    }
    assert!(problem(&writer.finish(page)).await.cause.contains("empty"));
}

#[tokio::test]
async fn wrong_numbers_are_damaged() {
    let mut writer = Writer::new(4096);
    let leaf = writer.leaf(&revisions(&WRITES));
    let root = writer.leaf(&vec![(1, b"key".to_vec(), [leaf.to_le_bytes(), [0; 8]].concat())]);
    let good = writer.finish(root);
    let leaf = 4096 * leaf as usize;
    let root = 4096 * root as usize;
    for (at, bytes, expected) in [
        (leaf, &[9][..], "the id of another page"),
        (leaf + 8, &[8], "neither a branch nor a leaf"),
        (leaf + 10, &[0xff, 0xff], "outside the page"),
        (leaf + 12, &[0xff; 4], "overflow pages"),
        (leaf + 12, &[9], "overflow pages"),
        (leaf + 16 + 6 * 16 + 8, &[0xff; 4], "outside the page"),
        (leaf + 16 + 6 * 16 + 4, &[0xff; 4], "outside the page"),
        (leaf + 16 + 6 * 16 + 8, &[16], "not a revision"),
        (root + 16 + 16 + 3, &[0xff; 8], "page 18446744073709551615 is named"),
        (root + 16 + 16, b"kex", "no bucket `key`"),
        (root + 16, &[0], "no bucket `key`"),
    ] {
        let mut damaged = good.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        let problem = problem(&damaged).await;
        assert_eq!(problem.code, "snapshot-damaged");
        assert!(problem.cause.contains(expected), "{expected}: {problem}");
    }
}

#[tokio::test]
async fn more_keys_than_the_limit_are_refused() {
    let file = file(&database(4096, 2, &WRITES));
    let open = Arc::new(ReadFile::open(file.path()).unwrap());
    let mut revisions = Revisions::new(Database::open(open).unwrap(), Vec::new(), 2).unwrap();
    assert_eq!(revisions.next_page().unwrap_err().code, "snapshot-too-large");
}

#[tokio::test]
async fn what_is_not_a_file_is_unreadable() {
    for path in ["/dev/null", "/", "/this/is/missing"] {
        let problem = SnapshotFile::open(Path::new(path)).await.unwrap_err();
        assert_eq!(problem.code, "snapshot-unreadable", "{problem}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A file without a digest, with bytes changed anywhere, is read to an end or damaged.
    #[test]
    fn changed_bytes_end_in_an_answer(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
        is_cut in prop::bool::weighted(0.1),
    ) {
        let mut bytes = database(512, 2, &WRITES);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let file = file(&bytes);
        let read = runtime.block_on(async {
            let mut objects = SnapshotFile::open(file.path()).await?.objects(b"").await?;
            let mut count = 0;
            while let Some(page) = objects.next_page().await? {
                count += page.len();
            }
            Ok::<_, Problem>(count)
        });
        match read {
            Ok(count) => prop_assert!(count <= WRITES.len()),
            Err(problem) => prop_assert_eq!(problem.code, "snapshot-damaged"),
        }
    }
}
