//! Tests of the suite itself: a keeper without a fault keeps every rule, and the intended rule
//! catches each fault.

mod faults;
mod keeper;
mod state;
mod subject;

use std::{collections::BTreeSet, panic, thread};

use faults::MUTANTS;
use subject::{Memory, Sealed};
use tokio::runtime::Builder;
use vault_kube_kms::testkit::Rule;

mod without_a_fault {
    vault_kube_kms::kek_contract!(super::Memory::new(None));
}

mod without_times {
    vault_kube_kms::kek_contract!(super::Memory::without_times());
}

mod without_binding {
    use super::{Memory, Sealed, faults::Fault};

    vault_kube_kms::kek_contract!(Sealed(Memory::new(Some(Fault::BindsNothingAndSaysSo))));
}

mod without_pinning {
    use super::{Memory, Sealed, faults::Fault};

    vault_kube_kms::kek_contract!(Sealed(Memory::new(Some(Fault::PinsNothingAndSaysSo))));
}

/// The number of mutants that run at once. A slow mutant mostly waits.
const AT_ONCE: usize = 16;

/// Runs a rule with one thread, as the program does. Returns the text of the panic if the rule is
/// broken.
fn broken_text(mutant: &faults::Mutant) -> Option<String> {
    let rule = Rule::ALL.iter().find(|rule| rule.name() == mutant.rule).expect("there is a rule");
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let held = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        runtime.block_on(async { rule.hold(&Memory::new(Some(mutant.fault))).await });
    }));
    runtime.shutdown_background();
    let panic = held.err()?;
    let text = panic.downcast_ref::<String>().map(String::as_str);
    Some(text.or_else(|| panic.downcast_ref().copied()).unwrap_or_default().to_owned())
}

#[test]
fn each_mutant_is_caught_by_its_rule() {
    let mut missed = Vec::new();
    for group in MUTANTS.chunks(AT_ONCE) {
        let tried = thread::scope(|scope| {
            let tries = group.iter().map(|mutant| scope.spawn(|| broken_text(mutant)));
            let tries: Vec<_> = tries.collect();
            tries.into_iter().map(|tried| tried.join().unwrap()).collect::<Vec<_>>()
        });
        for (mutant, text) in group.iter().zip(tried) {
            let first_line = text.as_deref().and_then(|text| text.lines().next());
            println!("{:?} -> {}: {}", mutant.fault, mutant.rule, first_line.unwrap_or("MISSED"));
            if !text.is_some_and(|text| text.contains(mutant.says)) {
                missed.push((mutant.fault, mutant.rule));
            }
        }
    }
    assert!(
        missed.is_empty(),
        "these mutants are not caught, or are caught for another reason: {missed:?}"
    );
}

#[test]
fn every_rule_catches_a_mutant() {
    let catching: BTreeSet<_> = MUTANTS.iter().map(|mutant| mutant.rule).collect();
    let every: BTreeSet<_> = Rule::ALL.iter().map(Rule::name).collect();
    assert_eq!(catching, every);
}
