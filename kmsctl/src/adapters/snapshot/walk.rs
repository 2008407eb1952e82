//! A walk over one tree of a bbolt database, from its last entry to its first.

use bytes::Bytes;

use super::bbolt::{Database, Element, Entry, Page};
use crate::domain::problem::Problem;

/// The deepest tree. bbolt's trees of 8 GiB have four levels.
const DEPTH_MAX: usize = 32;

/// A walk backwards. It ends for any bytes: the keys of the entries must fall, each leaf below the
/// root must have an entry, and the depth is bounded. So no leaf is visited twice.
#[derive(Debug)]
pub(super) struct Backwards {
    /// The pages from the root to the present leaf, with the number of elements that are left.
    path: Vec<(Page, usize)>,
    /// The key of the last entry that was returned.
    last: Option<Bytes>,
}

impl Backwards {
    pub(super) fn new(root: Page) -> Self {
        let count = root.count;
        Self { path: vec![(root, count)], last: None }
    }

    /// Returns the next entry. `None` after the first one of the tree.
    pub(super) fn next(&mut self, database: &Database) -> Result<Option<Entry>, Problem> {
        while let Some((page, left)) = self.path.last_mut() {
            let Some(index) = left.checked_sub(1) else {
                self.path.pop();
                continue;
            };
            *left = index;
            match database.element(page, index)? {
                Element::Entry(entry) => {
                    if self.last.as_ref().is_some_and(|last| entry.key >= *last) {
                        return Err(database.damaged(entry.offset, "its keys are not in order"));
                    }
                    self.last = Some(entry.key.clone());
                    return Ok(Some(entry));
                }
                Element::Child(id) => {
                    let offset = page.offset();
                    if self.path.len() >= DEPTH_MAX {
                        let what = format!("the tree has more than {DEPTH_MAX} levels");
                        return Err(database.damaged(offset, what));
                    }
                    let child = database.page(id)?;
                    if child.count == 0 {
                        return Err(database.damaged(child.offset(), format!("page {id} is empty")));
                    }
                    let count = child.count;
                    self.path.push((child, count));
                }
            }
        }
        Ok(None)
    }
}
