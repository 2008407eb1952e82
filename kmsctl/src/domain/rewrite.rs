//! The course of a rewrite: passes over resources, and when it has ended.
//!
//! A pass asks the API server to store each object again. The API server writes only the objects
//! that are stored in an old form (`GuaranteedUpdate` of `k8s.io/apiserver/pkg/storage/etcd3`). So a
//! pass in which it wrote nothing proves that it knows of no object in an old form.

use serde::{Deserialize, Serialize};

/// How many passes a run makes at most. Each rotation in the middle of a run costs one pass.
pub const MAX_PASSES: u32 = 5;

/// How many failures a run remembers. Further ones are counted.
pub const MAX_FAILURES: usize = 1000;

/// The version of the saved form.
const FORMAT: u32 = 1;

/// What the operator asked for. A saved run goes on only for the same demand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// The address of the API server.
    pub server: String,
    /// The resources, in the order of the work.
    pub resources: Vec<String>,
    /// The namespace, or `None` for all.
    pub namespace: Option<String>,
    /// The label selector, or `None` for all.
    pub selector: Option<String>,
    /// The key id under which the objects are to be. Only those under another one are tried.
    pub until_key_id: Option<String>,
    /// Whether nothing is to be written.
    pub dry_run: bool,
}

/// What became of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The API server stored it again.
    Rewritten,
    /// It was stored in the present form already.
    Fresh,
    /// Others wrote it so often that this program had no turn. Each of their writes used the
    /// present form.
    ByOthers,
    /// It was deleted.
    Gone,
    /// It was not stored. The text says why.
    Failed(String),
}

/// The counts of one resource. Each one but `rewritten` is of the present pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The objects that were listed.
    pub objects: u64,
    /// The objects that the API server stored again, in all passes.
    pub rewritten: u64,
    /// The objects that needed nothing.
    pub fresh: u64,
    /// The objects that others wrote at the same time.
    pub by_others: u64,
    /// The objects that were deleted.
    pub gone: u64,
    /// The objects that were not stored, and the lists that could not be read.
    pub failed: u64,
}

/// An object that was not stored, or a resource that could not be listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The resource.
    pub resource: String,
    /// The object as `namespace/name` or `name`. `None` for the whole list.
    pub object: Option<String>,
    /// Why. Contains no value of an object.
    pub why: String,
}

/// How a run stands. It can be saved, and goes on from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    format: u32,
    /// What the operator asked for.
    pub demand: Demand,
    /// The number of the present pass, from 1.
    pub pass: u32,
    /// The present resource, as an index of the demand's.
    at: usize,
    /// Where the next page of the present resource begins.
    after: Option<String>,
    /// How many objects this pass has rewritten.
    rewritten_in_pass: u64,
    /// One for each resource of the demand.
    tallies: Vec<Tally>,
    /// The failures of this pass, at most [`MAX_FAILURES`].
    pub failures: Vec<Failure>,
}

/// What follows a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Another pass is needed.
    Again,
    /// The pass wrote nothing and failed nowhere: nothing is left.
    Proven,
    /// Some objects could not be stored.
    Failed,
    /// The last pass that is allowed still wrote objects.
    Restless,
    /// A dry run ends after one pass.
    Dry,
}

impl Run {
    /// Returns a run at its beginning.
    #[must_use]
    pub fn new(demand: Demand) -> Self {
        let tallies = vec![Tally::default(); demand.resources.len()];
        Self {
            format: FORMAT,
            demand,
            pass: 1,
            at: 0,
            after: None,
            rewritten_in_pass: 0,
            tallies,
            failures: Vec::new(),
        }
    }

    /// Returns whether this saved run can go on for `demand`.
    #[must_use]
    pub fn can_go_on(&self, demand: &Demand) -> bool {
        self.format == FORMAT
            && self.demand == *demand
            && self.tallies.len() == demand.resources.len()
            && self.at <= demand.resources.len()
            && (1..=MAX_PASSES).contains(&self.pass)
    }

    /// Returns this saved run as it goes on. The key may have rotated since the beginning of its
    /// pass was done, so that pass alone proves nothing: another one follows.
    #[must_use]
    pub fn resumed(self) -> Self {
        if self.at == 0 && self.after.is_none() {
            return self;
        }
        Self { pass: 1, rewritten_in_pass: self.rewritten_in_pass.max(1), ..self }
    }

    /// Returns the index of the resource whose turn it is. `None` at the end of the pass.
    #[must_use]
    pub fn resource(&self) -> Option<usize> {
        (self.at < self.tallies.len()).then_some(self.at)
    }

    /// Returns where the next page begins.
    #[must_use]
    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Returns the counts of each resource, by its name.
    pub fn tallies(&self) -> impl Iterator<Item = (&str, &Tally)> {
        self.demand.resources.iter().map(String::as_str).zip(&self.tallies)
    }

    /// Records what became of an object.
    pub fn record(&mut self, object: String, fate: Fate) {
        let Some(tally) = self.tallies.get_mut(self.at) else { return };
        tally.objects += 1;
        match fate {
            Fate::Rewritten => {
                tally.rewritten += 1;
                self.rewritten_in_pass += 1;
            }
            Fate::Fresh => tally.fresh += 1,
            Fate::ByOthers => tally.by_others += 1,
            Fate::Gone => tally.gone += 1,
            Fate::Failed(why) => {
                tally.failed += 1;
                self.remember(Some(object), why);
            }
        }
    }

    /// Goes on at the position `next`, or with the next resource if there is none.
    pub fn turn_page(&mut self, next: Option<String>) {
        if next.is_none() {
            self.at += 1;
        }
        self.after = next;
    }

    /// Records that the rest of the present resource cannot be listed, and goes on with the next
    /// resource.
    pub fn skip_resource(&mut self, why: String) {
        if let Some(tally) = self.tallies.get_mut(self.at) {
            tally.failed += 1;
        }
        self.remember(None, why);
        self.turn_page(None);
    }

    /// Starts the present resource again. Its counts of this pass begin at zero.
    pub fn restart_resource(&mut self) {
        self.after = None;
        if let Some(tally) = self.tallies.get_mut(self.at) {
            *tally = Tally { rewritten: tally.rewritten, ..Tally::default() };
        }
        let name = self.demand.resources.get(self.at);
        self.failures.retain(|failure| Some(&failure.resource) != name);
    }

    /// Returns what follows the pass that has ended. On [`Ending::Again`] the next pass has begun.
    pub fn end_pass(&mut self) -> Ending {
        if self.demand.dry_run {
            return if self.has_failed() { Ending::Failed } else { Ending::Dry };
        }
        if self.rewritten_in_pass > 0 {
            if self.pass >= MAX_PASSES {
                return Ending::Restless;
            }
            self.pass += 1;
            self.at = 0;
            self.after = None;
            self.rewritten_in_pass = 0;
            self.failures.clear();
            for tally in &mut self.tallies {
                *tally = Tally { rewritten: tally.rewritten, ..Tally::default() };
            }
            return Ending::Again;
        }
        if self.has_failed() { Ending::Failed } else { Ending::Proven }
    }

    fn has_failed(&self) -> bool {
        self.tallies.iter().any(|tally| tally.failed > 0)
    }

    fn remember(&mut self, object: Option<String>, why: String) {
        if self.failures.len() < MAX_FAILURES {
            let resource = self.demand.resources.get(self.at).cloned().unwrap_or_default();
            self.failures.push(Failure { resource, object, why });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(resources: &[&str]) -> Run {
        Run::new(Demand {
            server: "https://localhost:6443".to_owned(),
            resources: resources.iter().map(ToString::to_string).collect(),
            namespace: None,
            selector: None,
            until_key_id: None,
            dry_run: false,
        })
    }

    fn pass(run: &mut Run, fate: &Fate) -> Ending {
        while run.resource().is_some() {
            run.record("default/a".to_owned(), fate.clone());
            run.turn_page(None);
        }
        run.end_pass()
    }

    #[test]
    fn ends_with_a_pass_that_writes_nothing() {
        let mut run = run(&["secrets", "configmaps"]);
        assert_eq!(pass(&mut run, &Fate::Rewritten), Ending::Again);
        assert_eq!(pass(&mut run, &Fate::Fresh), Ending::Proven);
        let tally = Tally { objects: 1, rewritten: 1, fresh: 1, ..Tally::default() };
        assert_eq!(
            run.tallies().collect::<Vec<_>>(),
            [("secrets", &tally), ("configmaps", &tally)]
        );
    }

    #[test]
    fn objects_of_busy_writers_do_not_keep_it_from_ending() {
        assert_eq!(pass(&mut run(&["leases"]), &Fate::ByOthers), Ending::Proven);
        assert_eq!(pass(&mut run(&["leases"]), &Fate::Gone), Ending::Proven);
    }

    #[test]
    fn a_failure_of_the_last_pass_counts_and_one_before_does_not() {
        let mut run = run(&["secrets"]);
        run.record("default/bad".to_owned(), Fate::Failed("webhook".to_owned()));
        assert_eq!(pass(&mut run, &Fate::Rewritten), Ending::Again);
        assert!(run.failures.is_empty());
        assert_eq!(pass(&mut run, &Fate::Failed("webhook".to_owned())), Ending::Failed);
        assert_eq!(run.failures.len(), 1);
    }

    #[test]
    fn the_passes_are_bounded() {
        let mut run = run(&["secrets"]);
        for _ in 1..MAX_PASSES {
            assert_eq!(pass(&mut run, &Fate::Rewritten), Ending::Again);
        }
        assert_eq!(pass(&mut run, &Fate::Rewritten), Ending::Restless);
    }

    #[test]
    fn the_failures_are_bounded_and_counted() {
        let mut run = run(&["secrets"]);
        for _ in 0..MAX_FAILURES + 5 {
            run.record("default/a".to_owned(), Fate::Failed("webhook".to_owned()));
        }
        assert_eq!(run.failures.len(), MAX_FAILURES);
        assert_eq!(run.tallies().next().unwrap().1.failed, 1005);
    }

    #[test]
    fn a_saved_run_goes_on_where_it_was() {
        let mut first = run(&["secrets"]);
        first.record("default/a".to_owned(), Fate::Rewritten);
        first.turn_page(Some("position".to_owned()));
        let saved = serde_json::to_vec(&first).unwrap();
        let again: Run = serde_json::from_slice(&saved).unwrap();
        assert_eq!(again, first);
        assert_eq!(again.after(), Some("position"));
        assert!(again.can_go_on(&first.demand));
        let other = Demand { namespace: Some("default".to_owned()), ..first.demand.clone() };
        assert!(!again.can_go_on(&other));
    }

    #[test]
    fn a_pass_that_was_interrupted_proves_nothing() {
        // The key may have rotated after the objects before the interruption were tried.
        let mut before = run(&["secrets", "configmaps"]);
        before.record("default/a".to_owned(), Fate::Fresh);
        before.turn_page(None);
        let mut run = before.resumed();
        assert_eq!(pass(&mut run, &Fate::Fresh), Ending::Again);
        assert_eq!(pass(&mut run, &Fate::Fresh), Ending::Proven);
        // Interrupted in its last pass, it has all passes before it again.
        run.pass = MAX_PASSES;
        run.at = 1;
        let mut run = run.resumed();
        assert_eq!(pass(&mut run, &Fate::Fresh), Ending::Again);
        // Nothing of the first pass was done.
        assert_eq!(pass(&mut self::run(&["secrets"]).resumed(), &Fate::Fresh), Ending::Proven);
    }

    #[test]
    fn a_damaged_saved_run_does_not_go_on() {
        let good = run(&["secrets"]);
        for damaged in [
            Run { at: 7, ..good.clone() },
            Run { pass: 0, ..good.clone() },
            Run { pass: 99, ..good.clone() },
            Run { tallies: Vec::new(), ..good.clone() },
            Run { format: 2, ..good.clone() },
        ] {
            assert!(!damaged.can_go_on(&good.demand), "{damaged:?}");
        }
    }

    #[test]
    fn a_list_that_starts_again_counts_its_objects_once() {
        let mut run = run(&["secrets"]);
        run.record("default/a".to_owned(), Fate::Rewritten);
        run.record("default/b".to_owned(), Fate::Failed("webhook".to_owned()));
        run.restart_resource();
        run.record("default/a".to_owned(), Fate::Fresh);
        let tally = Tally { objects: 1, rewritten: 1, fresh: 1, ..Tally::default() };
        assert_eq!(run.tallies().next().unwrap().1, &tally);
        assert!(run.failures.is_empty());
    }
}
