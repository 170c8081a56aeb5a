//! Drives the shim `user-heartbeat` by hand, with a real keeper, to be tried in a virtual machine on
//! which the node table is filled already. **It changes the running kernel**, and when it ends while
//! slots are beaten, the keeper waits for a daemon and then **resets the node**.
//!
//!     shimctl auto|region|symlink LOCAL-ID ID=SLOT... -- COMMAND , COMMAND , ...
//!
//! | command | does |
//! |---|---|
//! | `attach UUID ID=INCARNATION...`, `resume UUID ID=...` | the verb; we ourselves need not be named |
//! | `suspend UUID`, `node_down UUID ID INCARNATION`, `detach UUID` | the verb |
//! | `fails` | the next command must fail |
//! | `until REGION SLOT...` | waits until exactly these slots are live, and says how long it took |
//! | `sleep MS` | |
//! | `view`, `probe` | prints what there is |
//! | `restart` | drops the shim and the connection to the keeper, and starts anew |
//! | `stop` | ends the keeper |
//! | `sh COMMAND` | runs a shell command |
//!
//! Incarnations are hex.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use o2bridge_core::{GroupId, Incarnation, NodeId, Peers};
use o2bridge_keeper::{Keeper, SignOfLife};
use o2bridge_shim::Shim;
use o2bridge_shim::user_heartbeat::{
    BeatError, Beats, CarrierKind, Gates, Paths, Settings, Slots, UserHeartbeat, probe,
};

type Failure = Box<dyn Error>;

const USAGE: &str = "usage: shimctl auto|region|symlink LOCAL-ID ID=SLOT... -- COMMAND , ...";
const UNTIL_MAX: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shimctl: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Failure> {
    let at = arguments.iter().position(|word| word == "--").ok_or(USAGE)?;
    let (who, commands) = arguments.split_at(at);
    let mut bench = Bench::new(who)?;
    bench.start()?;
    let mut must_fail = false;
    for command in commands[1..].split(|word| word == ",") {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        if words == ["fails"] {
            must_fail = true;
            continue;
        }
        let began = Instant::now();
        let result = bench.obey(&words);
        let said = result.as_ref().map_or_else(ToString::to_string, |()| "done".into());
        println!("== {}: {said} ({} ms)", words.join(" "), began.elapsed().as_millis());
        if result.is_err() != must_fail {
            return Err(
                format!("it should have {}", if must_fail { "failed" } else { "worked" }).into()
            );
        }
        must_fail = false;
    }
    Ok(())
}

struct Bench {
    settings: Settings,
    shim: Option<UserHeartbeat>,
    keeper: Arc<Mutex<Option<Arc<Keeper>>>>,
}

impl Bench {
    fn new(who: &[String]) -> Result<Self, Failure> {
        let [carrier, local, nodes @ ..] = who else { return Err(USAGE.into()) };
        let carrier = match carrier.as_str() {
            "auto" => CarrierKind::Auto,
            "region" => CarrierKind::Region,
            "symlink" => CarrierKind::Symlink,
            _ => return Err(USAGE.into()),
        };
        let table = nodes.iter().map(|word| -> Result<_, Failure> {
            let (node, slot) = word.split_once('=').ok_or(USAGE)?;
            Ok((NodeId(node.parse()?), slot.parse()?))
        });
        let slots = Slots::default();
        slots.set(table.collect::<Result<_, _>>()?, NodeId(local.parse()?));
        let keeper: Arc<Mutex<Option<Arc<Keeper>>>> = Arc::default();
        let place = Arc::clone(&keeper);
        let start = move |device: &Path, block_bytes| -> Result<Arc<dyn Beats>, BeatError> {
            let log = Box::new(|notice| println!("keeper: {notice}"));
            let keeper = Arc::new(Keeper::start(
                keeper_settings(device, block_bytes)?,
                SignOfLife::Process,
                log,
            )?);
            *place.lock().map_err(|_| "poisoned")? = Some(Arc::clone(&keeper));
            Ok(keeper)
        };
        let settings = Settings {
            gates: Gates::new(Path::new("/sys/kernel/config")),
            carrier,
            paths: Paths::default(),
            device: std::env::var_os("SHIMCTL_DEVICE").map(PathBuf::from),
            slots,
            keeper: Arc::new(start),
        };
        Ok(Self { settings, shim: None, keeper })
    }

    fn start(&mut self) -> Result<(), Failure> {
        self.shim = None;
        *self.keeper.lock().map_err(|_| "poisoned")? = None;
        let (shim, because) = UserHeartbeat::start(&self.settings)?;
        println!("{because}");
        self.shim = Some(shim);
        Ok(())
    }

    fn obey(&mut self, words: &[&str]) -> Result<(), Failure> {
        let shim = self.shim.as_ref().ok_or("there is no shim")?;
        match words {
            ["attach", group, nodes @ ..] => shim.attach(uuid(group)?, &peers(nodes)?)?,
            ["resume", group, nodes @ ..] => shim.resume(uuid(group)?, &peers(nodes)?)?,
            ["suspend", group] => shim.suspend(uuid(group)?)?,
            ["node_down", group, node, life] => {
                shim.node_down(uuid(group)?, NodeId(node.parse()?), incarnation(life)?)?;
            }
            ["detach", group] => shim.detach(uuid(group)?)?,
            ["until", region, slots @ ..] => until(region, slots)?,
            ["sleep", ms] => std::thread::sleep(Duration::from_millis(ms.parse()?)),
            ["view"] => println!("{:#?}", shim.view()),
            ["probe"] => {
                probe(&self.settings.paths).iter().for_each(|finding| println!("{finding}"));
            }
            ["restart"] => self.start()?,
            ["stop"] => match &*self.keeper.lock().map_err(|_| "poisoned")? {
                Some(keeper) => keeper.stop()?,
                None => return Err("there is no keeper".into()),
            },
            ["sh", command @ ..] => {
                let mut shell = std::process::Command::new("sh");
                if !shell.args(["-c", &command.join(" ")]).status()?.success() {
                    return Err("the command failed".into());
                }
            }
            _ => return Err("no such command".into()),
        }
        Ok(())
    }
}

fn keeper_settings(
    device: &Path,
    block_bytes: u32,
) -> Result<o2bridge_keeper::Settings, BeatError> {
    let own = std::env::current_exe()?;
    let near = own.ancestors().skip(1).take(2).map(|dir| dir.join("o2bridge-keeper"));
    let program =
        near.into_iter().find(|path| path.exists()).ok_or("o2bridge-keeper is not near")?;
    std::fs::create_dir_all("/run/o2bridge")?;
    Ok(o2bridge_keeper::Settings {
        program,
        socket: "/run/o2bridge/keeper.sock".into(),
        device: Some(device.into()),
        control: None,
        block_bytes,
        dead_threshold: 31,
        beat_ms: 1_000,
        daemon_back_ms: 20_000,
        silence_max_ms: 52_000,
        sysrq: "/proc/sysrq-trigger".into(),
        watchdog: None,
        lock_memory: true,
        realtime_priority: 50,
        log: Some("/dev/kmsg".into()),
    })
}

fn until(region: &str, slots: &[&str]) -> Result<(), Failure> {
    let path = Path::new("/sys/kernel/debug/o2hb").join(region).join("livenodes");
    let wanted: BTreeSet<&str> = slots.iter().copied().collect();
    let end = Instant::now() + UNTIL_MAX;
    loop {
        let live = std::fs::read_to_string(&path)?;
        if live.split_whitespace().collect::<BTreeSet<_>>() == wanted {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("live are {live:?}").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn uuid(text: &str) -> Result<GroupId, Failure> {
    Ok(text.parse()?)
}

fn incarnation(text: &str) -> Result<Incarnation, Failure> {
    Ok(Incarnation(u64::from_str_radix(text, 16)?))
}

fn peers(words: &[&str]) -> Result<Peers, Failure> {
    let peer = |word: &&str| -> Result<_, Failure> {
        let (node, life) = word.split_once('=').ok_or(USAGE)?;
        Ok((NodeId(node.parse()?), incarnation(life)?))
    };
    words.iter().map(peer).collect()
}
