//! What runs did, so that an idle one is noticed.

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident: $label:literal,)*) => {
        /// How often things happened.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counts {
            /// Adds another run's.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Each with its label.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$(($label, self.$name),)*]
            }

            /// All numbers, for one process to tell another.
            #[must_use]
            pub fn numbers(&self) -> Vec<u64> {
                vec![$(self.$name,)*]
            }

            /// The other way.
            pub fn set(&mut self, numbers: &mut impl Iterator<Item = u64>) {
                $(self.$name = numbers.next().unwrap_or(0);)*
            }
        }
    };
}

counts! {
    /// Events that cores handled.
    events: "events",
    /// Steps from outside.
    steps: "steps",
    /// Messages between daemons.
    messages: "messages",
    /// Verbs said to kernels.
    verbs: "verbs",
    /// Node deaths told to kernels.
    node_downs: "node_down",
    /// Deaths that daemons decided.
    deaths: "deaths decided",
    /// Clean leaves that daemons saw.
    leaves: "leaves",
    /// Tools that ran.
    tools: "tools",
    /// Tools that died.
    tool_deaths: "tools died",
    /// Tools that were told to go ahead.
    grants: "grants",
    /// Requests refused.
    refusals: "refusals",
    /// Mounts.
    mounts: "mounts",
    /// Locks granted.
    locks: "locks",
    /// Journals replayed.
    replays: "journals replayed",
    /// Nodes that lost power.
    crashes: "power losses",
    /// Nodes that reset themselves.
    resets: "resets",
    /// Nodes fenced, by a device that said so.
    fences: "fenced",
    /// Fence devices that lied.
    lies: "fence lies",
    /// Deaths that an administrator confirmed.
    acks: "acks",
    /// Uses that their node learned to be buried.
    expulsions: "expelled",
    /// Daemons killed.
    daemon_kills: "daemons killed",
    /// Daemons that ended in order.
    exits: "daemons stopped",
    /// Daemons whose grace was over.
    kills: "graces over",
    /// Network partitions.
    partitions: "partitions",
    /// Rings formed.
    rings: "rings",
    /// Ghosts noticed.
    ghosts: "ghosts",
    /// Messages of strangers.
    garbage: "garbage",
    /// Effects that failed.
    errors: "errors",
}
