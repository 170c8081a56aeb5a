//! A daemon for the command line: for tests, and for looking around in the lab.
//!
//!     keeperctl [--KEY VALUE]... COMMAND
//!
//! The keys are those of o2bridge-keeper, each with a default, and `--program`. Like a daemon it
//! starts a keeper if none runs, and is refused while another daemon is connected and alive; when it
//! ends, the keeper begins to wait for a daemon, and resets the node if none comes.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::ExitCode;

use o2bridge_keeper::{
    Area, Generation, Keeper, SLOT_MAX, Settings, SignOfLife, Slot, block, block_number,
};

const USAGE: &str = "usage: keeperctl [--KEY VALUE]... COMMAND
  beat AREA SLOT GENERATION   beat a slot
  down AREA SLOT              one write with generation 0, and no more beats
  clear AREA                  forget the area's slots, fill it with zeros
  table                       what the keeper beats
  reset WHY                   reset this node
  stop                        end a keeper that beats nothing
  hold                        stay connected, like a daemon, until standard input ends
  blocks AREA                 what is on the device; asks no keeper";

const DEFAULTS: [(&str, &str); 10] = [
    ("--socket", "/run/o2bridge/keeper.sock"),
    ("--device", "/dev/ram0"),
    ("--sysrq", "/proc/sysrq-trigger"),
    ("--block-bytes", "512"),
    ("--dead-threshold", "31"),
    ("--beat-ms", "1000"),
    ("--daemon-back-ms", "20000"),
    ("--silence-max-ms", "52000"),
    ("--lock-memory", "1"),
    ("--realtime-priority", "50"),
];

fn settings(mut keys: Vec<OsString>) -> Result<Settings, String> {
    let program = match keys.chunks(2).position(|pair| pair[0] == "--program") {
        Some(at) => keys.drain(2 * at..2 * at + 2).nth(1).map(PathBuf::from),
        None => std::env::current_exe().ok().map(|own| own.with_file_name("o2bridge-keeper")),
    };
    for (name, value) in DEFAULTS {
        if !keys.chunks(2).any(|pair| pair[0] == name) {
            keys.extend([name.into(), value.into()]);
        }
    }
    let settings = Settings::from_args(&keys).map_err(|error| error.to_string())?;
    let program = program.ok_or("where is o2bridge-keeper? Say --program")?;
    Ok(Settings { program, ..settings })
}

fn number<T: TryFrom<u64>>(word: &str) -> Result<T, String> {
    let digits = word.strip_prefix("0x");
    let number = digits.map_or_else(|| word.parse(), |digits| u64::from_str_radix(digits, 16));
    let number = number.ok().and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| format!("\"{word}\" is no number that fits"))
}

fn blocks(settings: &Settings, area: Area) -> Result<(), String> {
    let device = File::open(settings.device.as_deref().unwrap_or("/dev/ram0".as_ref()))
        .map_err(|error| error.to_string())?;
    let mut bytes = vec![0; settings.block_bytes as usize];
    for slot in (0..=SLOT_MAX).map(Slot) {
        let at = block_number(area, slot) * u64::from(settings.block_bytes);
        device.read_exact_at(&mut bytes, at).map_err(|error| error.to_string())?;
        match block::decode(&bytes) {
            Ok(said) if said.seq == 0 => {}
            Ok(said) => println!("{area} {slot} {said:x?}"),
            Err(error) => println!("{area} {slot} {error}"),
        }
    }
    Ok(())
}

fn hold(keeper: &Keeper) {
    println!("keeper {}", keeper.pid().unwrap_or(0));
    let mut bytes = [0; 64];
    while std::io::stdin().read(&mut bytes).is_ok_and(|length| length > 0) {}
}

fn run() -> Result<(), String> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let keys = args.chunks(2).take_while(|pair| pair[0].to_string_lossy().starts_with("--"));
    let (keys, words) = args.split_at((keys.count() * 2).min(args.len()));
    if keys.len() % 2 == 1 {
        return Err(USAGE.into());
    }
    let settings = settings(keys.to_vec())?;
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    if let ["blocks", area] = words.as_slice() {
        return blocks(&settings, Area(number(area)?));
    }
    if !matches!(
        words.first(),
        Some(&("beat" | "down" | "clear" | "table" | "reset" | "stop" | "hold"))
    ) {
        return Err(USAGE.into());
    }
    let log = Box::new(|notice| eprintln!("{notice}"));
    let keeper =
        Keeper::start(settings, SignOfLife::Process, log).map_err(|error| error.to_string())?;
    let result = match words.as_slice() {
        ["beat", area, slot, life] => {
            let life = Generation::new(number(life)?).ok_or("generation 0 is \"down\"")?;
            keeper.beat(Area(number(area)?), Slot(number(slot)?), life)
        }
        ["down", area, slot] => keeper.down(Area(number(area)?), Slot(number(slot)?)),
        ["clear", area] => keeper.clear(Area(number(area)?)),
        ["reset", why @ ..] => keeper.reset_node(&why.join(" ")),
        ["stop"] => keeper.stop(),
        ["table"] => {
            for ((area, slot), generation) in keeper.table() {
                println!("{area} {slot} {generation}");
            }
            Ok(())
        }
        ["hold"] => {
            hold(&keeper);
            Ok(())
        }
        _ => return Err(USAGE.into()),
    };
    result.map_err(|error| error.to_string())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
