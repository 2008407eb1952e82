//! The pages of a bbolt database (`go.etcd.io/bbolt`, `internal/common`). Numbers are little-endian,
//! as on every machine that etcd supports but s390x.
//!
//! ```text
//! page     id u64, flags u16, count u16, overflow u32, then the elements
//! meta     magic u32, version u32, page size u32, flags u32, root u64, sequence u64, freelist u64,
//!          pages u64, transaction u64, FNV-1a of these u64
//! branch   position u32, length of the key u32, page u64
//! leaf     flags u32, position u32, length of the key u32, length of the value u32
//! bucket   root u64, sequence u64; when root is 0, its one page follows in the value
//! ```
//!
//! A position counts from the beginning of its element.

use std::sync::Arc;

use bytes::Bytes;

use super::file::{Digest, ReadFile, SECTOR};
use crate::domain::problem::Problem;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// The sizes of a page that are tried, as powers of two: 512 bytes to 1 MiB. Operating systems have
/// pages of 4 to 64 KiB.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 9..=20;

const PAGE_HEADER: usize = 16;
const ELEMENT: usize = 16;
const BUCKET_HEADER: usize = 16;
/// The bytes of a meta page that its checksum covers.
const META: usize = 56;

const BRANCH_FLAG: u16 = 0x01;
const LEAF_FLAG: u16 = 0x02;
const META_FLAG: u16 = 0x04;
const BUCKET_FLAG: u32 = 0x01;

/// The largest page, with its overflow. etcd takes requests of 1.5 MiB unless it is told otherwise,
/// and a leaf has up to four values.
const LEAF_MAX: u64 = 64 << 20;

/// The largest branch page. A walk keeps one for each level.
const BRANCH_MAX: u64 = 1 << 20;

/// A database that is open for reading.
#[derive(Debug)]
pub(super) struct Database {
    file: Arc<ReadFile>,
    meta: Meta,
}

/// What the newer valid meta page says.
#[derive(Clone, Copy, Debug)]
struct Meta {
    page_size: u32,
    root: u64,
    pages: u64,
    transaction: u64,
}

/// A page of a tree.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) is_leaf: bool,
    pub(super) count: usize,
    /// The offset of the page in the file.
    offset: u64,
    bytes: Bytes,
}

/// An element of a page.
#[derive(Clone, Debug)]
pub(super) enum Element {
    Child(u64),
    Entry(Entry),
}

/// An entry of a leaf.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) is_bucket: bool,
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    /// The offset of its page in the file.
    pub(super) offset: u64,
}

impl Database {
    /// Opens the database of a file whose digest fits or is absent.
    pub(super) fn open(file: Arc<ReadFile>) -> Result<Self, Problem> {
        if let Some(format) = compressed(&file) {
            return Err(file.damaged(0, format!("it is compressed ({format}); decompress it")));
        }
        if file.facts().digest == Digest::Differs {
            return Err(file.damaged(
                file.length(),
                "the SHA-256 at its end is not that of the file, which was changed or cut",
            ));
        }
        if !file.length().is_multiple_of(SECTOR) {
            return Err(file.damaged(
                file.length(),
                "the file is cut: its size is neither that of a database nor 32 bytes more",
            ));
        }
        let meta = meta(&file)?;
        let needed = meta.pages.saturating_mul(meta.page_size.into());
        if needed > file.length() {
            return Err(file.damaged(
                file.length(),
                format!("the file is cut: the database has {needed} bytes"),
            ));
        }
        Ok(Self { file, meta })
    }

    /// Returns the page at the root of the tree of buckets.
    pub(super) fn root(&self) -> Result<Page, Problem> {
        self.page(self.meta.root)
    }

    /// Returns the page at the root of a bucket.
    pub(super) fn bucket(&self, entry: &Entry) -> Result<Page, Problem> {
        match number(&entry.value, 0).map(u64::from_le_bytes) {
            Some(0) => {
                let inline = entry.value.slice(BUCKET_HEADER.min(entry.value.len())..);
                self.parse(inline, entry.offset)
            }
            Some(root) => self.page(root),
            None => Err(self.damaged(entry.offset, "a bucket has no header")),
        }
    }

    /// Reads a page with its overflow.
    pub(super) fn page(&self, id: u64) -> Result<Page, Problem> {
        let size = u64::from(self.meta.page_size);
        let offset = id.saturating_mul(size);
        if id < 2 || id >= self.meta.pages {
            return Err(self.damaged(
                offset,
                format!("page {id} is named, and the database has pages 2 to {}", self.meta.pages),
            ));
        }
        let header = self.file.read(offset, PAGE_HEADER)?;
        if number(&header, 0).map(u64::from_le_bytes) != Some(id) {
            return Err(self.damaged(offset, format!("page {id} has the id of another page")));
        }
        let flags = number(&header, 8).map_or(0, u16::from_le_bytes);
        let overflow = number(&header, 12).map_or(0, u32::from_le_bytes);
        let most = if flags == BRANCH_FLAG { BRANCH_MAX.max(size) } else { LEAF_MAX };
        let length = size.saturating_mul(u64::from(overflow).saturating_add(1));
        if length > most || id.saturating_add(overflow.into()) >= self.meta.pages {
            return Err(self.damaged(
                offset,
                format!("page {id} has {overflow} overflow pages, more than is possible"),
            ));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.parse(self.file.read(offset, length)?, offset)
    }

    fn parse(&self, bytes: Bytes, offset: u64) -> Result<Page, Problem> {
        let is_leaf = match number(&bytes, 8).map(u16::from_le_bytes) {
            Some(LEAF_FLAG) => true,
            Some(BRANCH_FLAG) => false,
            _ => return Err(self.damaged(offset, "the page is neither a branch nor a leaf")),
        };
        let count = number(&bytes, 10).map_or(0, u16::from_le_bytes).into();
        Ok(Page { is_leaf, count, offset, bytes })
    }

    /// Returns the element `index` of a page.
    pub(super) fn element(&self, page: &Page, index: usize) -> Result<Element, Problem> {
        page.element(index).ok_or_else(|| {
            self.damaged(page.offset, format!("element {index} of the page is outside the page"))
        })
    }

    pub(super) fn damaged(&self, offset: u64, what: impl std::fmt::Display) -> Problem {
        self.file.damaged(offset, what)
    }
}

impl Page {
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    fn element(&self, index: usize) -> Option<Element> {
        let at = index.checked_mul(ELEMENT)?.checked_add(PAGE_HEADER)?;
        if !self.is_leaf {
            return Some(Element::Child(u64::from_le_bytes(number(&self.bytes, at + 8)?)));
        }
        let word = |field: usize| {
            usize::try_from(u32::from_le_bytes(number(&self.bytes, at + 4 * field)?)).ok()
        };
        let flags = u32::from_le_bytes(number(&self.bytes, at)?);
        let key = at.checked_add(word(1)?)?;
        let value = key.checked_add(word(2)?)?;
        let end = value.checked_add(word(3)?)?;
        if end > self.bytes.len() {
            return None;
        }
        Some(Element::Entry(Entry {
            is_bucket: flags & BUCKET_FLAG != 0,
            key: self.bytes.slice(key..value),
            value: self.bytes.slice(value..end),
            offset: self.offset,
        }))
    }
}

/// Returns the format of a compressed file, such as k3s and RKE make of snapshots.
fn compressed(file: &ReadFile) -> Option<&'static str> {
    let begin = file.read(0, 4).ok()?;
    let formats: [(&[u8], _); 3] =
        [(b"PK\x03\x04", "zip"), (b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd")];
    formats.into_iter().find(|(magic, _)| begin.starts_with(magic)).map(|(_, name)| name)
}

/// Returns the newer valid meta page. When the first one is damaged, nothing says the size of a
/// page, so each size is tried, as bbolt does.
fn meta(file: &ReadFile) -> Result<Meta, Problem> {
    let first = meta_at(file, 0);
    let sizes = PAGE_SIZES.map(|power| 1_u32 << power);
    let second = sizes
        .filter(|size| first.is_none_or(|first| first.page_size == *size))
        .find_map(|size| meta_at(file, size.into()).filter(|meta| meta.page_size == size));
    first.into_iter().chain(second).max_by_key(|meta| meta.transaction).ok_or_else(|| {
        file.damaged(0, "neither of its two meta pages is valid: it is not a snapshot of etcd")
    })
}

/// Returns what a valid meta page at `offset` says.
fn meta_at(file: &ReadFile, offset: u64) -> Option<Meta> {
    let page = file.read(offset, PAGE_HEADER + META + 8).ok()?;
    let meta = page.get(PAGE_HEADER..PAGE_HEADER + META)?;
    let u32_at = |at| Some(u32::from_le_bytes(number(meta, at)?));
    let u64_at = |at| Some(u64::from_le_bytes(number(meta, at)?));
    let page_size = u32_at(8)?;
    let is_valid = u16::from_le_bytes(number(&page, 8)?) == META_FLAG
        && u32_at(0)? == MAGIC
        && u32_at(4)? == VERSION
        && page_size.is_power_of_two()
        && PAGE_SIZES.contains(&page_size.trailing_zeros())
        && u64::from_le_bytes(number(&page, PAGE_HEADER + META)?) == fnv1a(meta);
    is_valid.then_some(Meta {
        page_size,
        root: u64_at(16)?,
        pages: u64_at(40)?,
        transaction: u64_at(48)?,
    })
}

/// FNV-1a with 64 bits.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Returns the `N` bytes of a number at `at`.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}
