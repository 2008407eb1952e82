//! The soak: load, faults, rotations and kills for a given time, on an optimised build.

use crate::{
    release,
    run::{Failure, run, say},
    test::suite,
    tools,
};

/// The duration of the soak, and the seed of its random choices.
pub(crate) struct Choice<'a> {
    minutes: &'a str,
    seed: Option<&'a str>,
}

impl<'a> Choice<'a> {
    /// Reads `--minutes N` and `--seed N`.
    pub(crate) fn read(flags: &[&'a str]) -> Result<Self, Failure> {
        let mut choice = Self { minutes: "30", seed: None };
        let mut flags = flags.iter();
        while let Some(flag) = flags.next() {
            let value = flags.next().copied().ok_or_else(|| format!("{flag} needs a number"));
            match *flag {
                "--minutes" => choice.minutes = value?,
                "--seed" => choice.seed = Some(value?),
                _ => return Err(format!("soak has no flag {flag}").into()),
            }
        }
        let minutes: u32 = choice.minutes.parse().map_err(|_none| "--minutes needs a number")?;
        if minutes == 0 {
            return Err("a soak takes at least one minute; give --minutes 1 or more".into());
        }
        Ok(choice)
    }

    /// Returns the time after which the soak counts as stuck. The last fault may end after the
    /// requested time.
    fn bound(&self) -> String {
        let minutes: u32 = self.minutes.parse().unwrap_or(0);
        format!("{}m", minutes.saturating_add(10))
    }
}

/// Runs the soak.
pub(crate) fn run_soak(choice: &Choice<'_>) -> Result<(), Failure> {
    let bao = tools::openbao()?;
    let shipped = release::binary()?;
    say(&format!("soak: {} minutes", choice.minutes));
    let mut go = suite("faults", &choice.bound(), bao.as_deref());
    go.args(["-run", "^TestSoak$", "-v"])
        .env("PROVIDER", shipped)
        .env("SOAK_MINUTES", choice.minutes);
    if let Some(seed) = choice.seed {
        go.env("SOAK_SEED", seed);
    }
    run(&mut go)
}
