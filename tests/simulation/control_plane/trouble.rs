//! The faults of the keeper, the nodes, their clocks and the API servers.

use std::sync::atomic::Ordering;

use super::ControlPlane;

impl ControlPlane {
    /// Begins a fault or an operator's action, at random.
    pub(super) fn trouble(&mut self) {
        let node = self.below(3) as usize;
        match self.below(400) {
            0..8 => {
                self.say(format_args!("the key is rotated"));
                // After a rollback a version number may get another key.
                if self.world.lock().unwrap().next_number_was_used() {
                    self.replaced();
                }
                self.world.lock().unwrap().rotate();
            }
            8..12 => self.set_minimums(),
            12 => {
                self.say(format_args!("the key is deleted and made anew"));
                self.replaced();
                self.world.lock().unwrap().make_anew();
            }
            13 => self.restore_backup(),
            14..18 => {
                self.say(format_args!("node {node} loses the keeper"));
                self.world.lock().unwrap().cut.insert(node);
            }
            18..28 => {
                self.say(format_args!("all reach the keeper"));
                self.world.lock().unwrap().cut.clear();
            }
            28..30 => {
                self.say(format_args!("node {node} loses its rights"));
                self.world.lock().unwrap().denied.insert(node);
            }
            30..34 => self.world.lock().unwrap().denied.clear(),
            34..38 => self.move_clock(node),
            38..41 => {
                self.say(format_args!("node {node} restarts"));
                self.restart(node);
            }
            41..45 => {
                self.say(format_args!("API server {node} restarts"));
                self.servers[node].restart();
                self.reads.retain(|(server, ..)| *server != node);
            }
            45..48 => {
                let seconds = 2 + self.below(38);
                self.say(format_args!("node {node} stands still for {seconds} s"));
                self.still_until_ms[node] = self.now() + seconds * 1_000;
                self.executor.stand_still(node);
            }
            48..51 => {
                self.say(format_args!("the keeper is slow for node {node}"));
                self.world.lock().unwrap().slow.insert(node);
            }
            51..56 => self.world.lock().unwrap().slow.clear(),
            56..59 => {
                self.say(format_args!("the keeper does not tell node {node} of its key"));
                self.world.lock().unwrap().unread.insert(node);
            }
            59..64 => self.world.lock().unwrap().unread.clear(),
            _ => (),
        }
    }

    fn set_minimums(&mut self) {
        let (one, two) = (self.below(4), self.below(4));
        self.upheaval_ms = self.now();
        let mut world = self.world.lock().unwrap();
        world.change(|state| {
            let latest = state.latest();
            let decryption = latest.saturating_sub(one as u32).max(1);
            state.min_decryption = decryption;
            let encryption = latest.saturating_sub(two as u32).max(decryption);
            state.min_encryption = if two == 3 { 0 } else { encryption };
            // At times, archived versions are trimmed.
            if one == 0 && two == 0 {
                state.versions.retain(|version, _| *version >= decryption);
            }
        });
        let state = world.truth().clone();
        drop(world);
        self.say(format_args!("minimums {}, {}", state.min_decryption, state.min_encryption));
    }

    fn replaced(&mut self) {
        self.upheaval_ms = self.now();
        self.replaced_ms.push(self.upheaval_ms);
    }

    /// The key goes back to an earlier state.
    fn restore_backup(&mut self) {
        self.replaced();
        let mut world = self.world.lock().unwrap();
        let count = world.history.len() as u64;
        let at = world.chance.below(count) as usize;
        let (now, backup) = (world.now_ms, world.history[at].1.clone());
        world.history.push((now, backup));
        drop(world);
        self.say(format_args!("the key is restored as of change {at} of {count}"));
    }

    fn move_clock(&mut self, node: usize) {
        let has_date = self.world.lock().unwrap().has_date;
        // Without the keeper's clock, the node's clock is not corrected, so it must be nearly
        // right.
        let most = if has_date { 3_600_000 } else { 2_000 };
        // Half of them near the edge at which the keeper's clock begins to correct ours.
        let off = if self.below(2) == 0 {
            let edge = 1_500 + self.below(1_000) as i64;
            if self.below(2) == 0 { edge } else { -edge }
        } else {
            self.below(2 * most) as i64 - most as i64
        };
        self.say(format_args!("the clock of node {node} is {off} ms off"));
        self.nodes[node].off_ms.store(off, Ordering::Relaxed);
    }
}
