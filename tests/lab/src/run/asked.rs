//! Which scenarios are run on which kernels.

use super::Scenario;

/// The kernels that every scenario is run on, unless it says otherwise.
pub const USUAL: [&str; 2] = ["6.1", "6.12"];
/// These, and the newest that boots.
pub const AND_NEWEST: &[&str] = &["6.1", "6.12", "sid"];

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Asked {
    /// On these kernels; none: on those that a scenario is for.
    pub kernels: Vec<String>,
    /// These scenarios.
    pub scenarios: Vec<Scenario>,
    /// Whether they were asked for by name, and not just all.
    pub by_name: bool,
}

impl Asked {
    /// A scenario that is named is run on any kernel that is named; else only where it is meant to be.
    pub(super) fn wants(&self, scenario: &Scenario, kernel: &str) -> bool {
        let is_named = self.kernels.iter().any(|name| name == kernel);
        if self.by_name && is_named {
            return true;
        }
        is_for(scenario, kernel) && (is_named || self.kernels.is_empty())
    }
}

fn is_for(scenario: &Scenario, kernel: &str) -> bool {
    let own = scenario.kernels;
    if own.is_empty() { USUAL.contains(&kernel) } else { own.contains(&kernel) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(kernels: &'static [&'static str]) -> Scenario {
        Scenario { name: "x", guests: 1, text: "", kernels, run: |_| Ok(()) }
    }

    /// The kernels that it is run on.
    fn runs(kernels: &[&str], by_name: bool, scenario: &Scenario) -> Vec<&'static str> {
        let kernels = kernels.iter().map(|&name| name.to_owned()).collect();
        let asked = Asked { kernels, scenarios: Vec::new(), by_name };
        ["5.10", "6.1", "sid"].into_iter().filter(|name| asked.wants(scenario, name)).collect()
    }

    #[test]
    fn a_scenario_is_run_where_it_is_meant_to_be_or_is_asked_for() {
        let (usual, old) = (scenario(&[]), scenario(&["5.10"]));
        for by_name in [false, true] {
            assert_eq!(runs(&[], by_name, &usual), ["6.1"]);
            assert_eq!(runs(&[], by_name, &old), ["5.10"]);
        }
        assert_eq!(runs(&["5.10", "6.1"], false, &usual), ["6.1"], "a kernel alone gets its own");
        assert_eq!(runs(&["5.10", "6.1"], false, &old), ["5.10"]);
        assert_eq!(runs(&["5.10", "sid"], true, &usual), ["5.10", "sid"], "both are named");
    }
}
