//! The shim `control`: OCFS2 is told of deaths through its control device, beside a dlm_controld that asks.

mod controld;
mod fencing;
mod idle;
mod kills;
mod other;
mod versions;

use std::thread;
use std::time::{Duration, Instant};

use super::bridge::{self, DISK};
use super::dlm::fall::{self, Fall, LIMIT};
use super::dlm::trace::{DOWN, REPLAY, START, STOP, Trace};
use super::dlm::{self, Dlm};
use super::ordinary::cross_over;
use super::seen;
use super::stock::{self, MOUNT};
use crate::ensure;
use crate::error::Result;
use crate::fence::Switch;
use crate::lab::Lab;
use crate::run::{Context, Scenario};

/// Where DOWN is no kernel bug.
const SAFE: &[&str] = &[dlm::SAFE_KERNEL];

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "control",
        guests: 2,
        text: "control: a user-stack volume mounted on two nodes, files, umount; nothing is left",
        kernels: SAFE,
        run: plain,
    },
    Scenario {
        name: "controldeath",
        guests: 2,
        text: "control: a node dies while it writes: stop, DOWN, notified; replayed once; it returns",
        kernels: SAFE,
        run: death,
    },
    Scenario {
        name: "controlslow",
        guests: 2,
        text: "control: fencing takes 20 s, and nothing recovers before; dlm_controld stands still for 5 s",
        kernels: SAFE,
        run: slow,
    },
    Scenario {
        name: "controlkill",
        guests: 2,
        text: "control: o2bridged is killed 20 times under load, then its keeper: no reset; both: reset at once",
        kernels: SAFE,
        run: kills::run,
    },
    Scenario {
        name: "controlbegin",
        guests: 2,
        text: "control: a mount that fails after its begin; a client killed between begin and mount",
        kernels: SAFE,
        run: begun,
    },
    Scenario {
        name: "controltools",
        guests: 1,
        text: "control: tools that say MOUNT and nothing more (label cman)",
        kernels: SAFE,
        run: |context| dlm::tools::run(context, "cman", Dlm::Asks),
    },
    Scenario {
        name: "controlsilent",
        guests: 1,
        text: "control: tools that say nothing (label pcmk)",
        kernels: SAFE,
        run: |context| dlm::tools::run(context, "pcmk", Dlm::Asks),
    },
    Scenario {
        name: "controldlm",
        guests: 2,
        text: "control: dlm_controld is missing, then killed, then killed where the peer dies",
        kernels: SAFE,
        run: controld::run,
    },
    Scenario {
        name: "controlfence",
        guests: 2,
        text: "control: dlm_controld fences, too: nothing recovers before both have, and once",
        kernels: SAFE,
        run: fencing::run,
    },
    Scenario {
        name: "controlidle",
        guests: 3,
        text: "control: the one node with a mount dies, and an idle one mounts: not before it is fenced",
        kernels: SAFE,
        run: idle::run,
    },
    Scenario {
        name: "controlother",
        guests: 2,
        text: "control: a volume of another cluster mounts; a death is told for it all the same",
        kernels: SAFE,
        run: other::run,
    },
    Scenario {
        name: "controlversions",
        guests: 2,
        text: "control: kernels that know other locking protocols run the oldest, or are kept out",
        kernels: SAFE,
        run: versions::run,
    },
    Scenario {
        name: "controldeaths",
        guests: 2,
        text: "control: 20 deaths, one after the other, and their times",
        kernels: SAFE,
        run: |context| fall::many(context, DEATHS, "cman", Dlm::Asks),
    },
    Scenario {
        name: "control3",
        guests: 3,
        text: "control: of three nodes one dies, then two at once",
        kernels: SAFE,
        run: three,
    },
];

fn plain(context: &Context) -> Result<()> {
    let lab = dlm::mounted(context, 2, "cman", Dlm::Asks)?;
    cross_over(&lab)?;
    dlm::end(&lab)
}

fn death(context: &Context) -> Result<()> {
    let lab = dlm::mounted(context, 2, "cman", Dlm::Asks)?;
    let fall = Fall::strike(&lab, &[2])?;
    let answered = fall.recovered()?;
    fall.figures(context, answered)?;
    fall.order(Dlm::Asks)?;
    fall.come_back(Dlm::Asks)?;
    cross_over(&lab)?;
    dlm::end(&lab)
}

/// Longer than all else that a death takes.
const FENCING: Duration = Duration::from_secs(20);
const STANDSTILL: Duration = Duration::from_secs(5);

fn slow(context: &Context) -> Result<()> {
    let lab = dlm::mounted(context, 2, "cman", Dlm::Asks)?;
    let one = lab.guest(1);
    lab.fencing.set(Switch::Slow(FENCING));
    let fall = Fall::strike(&lab, &[2])?;
    thread::sleep((FENCING - Duration::from_secs(2)).saturating_sub(fall.killed.elapsed()));
    nothing_recovered(&lab)?;
    let answered = fall.recovered()?;
    ensure!(answered - fall.killed > FENCING, "recovered before it was fenced");
    context.figure("kill to access, fencing takes 20 s", answered - fall.killed);
    fall.order(Dlm::Asks)?;
    lab.fencing.set(Switch::Works);
    fall.come_back(Dlm::Asks)?;

    let fall = Fall::strike(&lab, &[2])?;
    one.ok("kill -STOP $(pidof dlm_controld)")?;
    let stopped = Instant::now();
    thread::sleep(STANDSTILL);
    nothing_recovered(&lab)?;
    let log = one.log("o2bridged.log");
    ensure!(log.contains("dlm_controld has not answered for"), "nobody noticed that it is stopped");
    one.ok("kill -CONT $(pidof dlm_controld)")?;
    ensure!(stopped.elapsed() < LIMIT, "the guest was too slow");
    let answered = fall.recovered()?;
    context.figure("kill to access, dlm_controld stopped 5 s", answered - fall.killed);
    fall.order(Dlm::Asks)?;
    dlm::end(&lab)
}

/// The survivor's OCFS2 has not heard of a death, and its lockspace does not go on.
fn nothing_recovered(lab: &Lab) -> Result<()> {
    let trace = Trace::of(lab.guest(1))?;
    for word in [DOWN, START, REPLAY] {
        let found = trace.all(word);
        ensure!(found.is_empty(), "too early: {found:?}");
    }
    lab.step(&format!("nothing has recovered, {} stops", trace.all(STOP).len()));
    Ok(())
}

pub(super) const DEATHS: usize = 20;

/// A tool of the old door that begins, and then does what it is told.
const BEGINNER: &str = r#"
import os, socket, sys, time
open("/tmp/beginner", "w").write(str(os.getpid()))
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s.connect("\0ocfs2_controld_sock")
s.sendall(("MOUNT ocfs2 %s lab /dev/vda ocfs2" % sys.argv[1]).encode().ljust(256, b"\0"))
answer = s.recv(256).rstrip(b"\0").decode()
open("/tmp/begun", "w").write(answer)
time.sleep(1000)
"#;

/// Shakes hands with the kernel as node 7. With nothing mounted its end harms nobody.
const OTHER_LINE: &str = r#"
import os, time
fd = os.open("/dev/ocfs2_control", os.O_RDWR)
assert os.read(fd, 4) == b"T01\n"
for record in (b"T01\n", b"SETN 00000007\n", b"SETV 01 00\n"):
    os.write(fd, record)
open("/tmp/held", "w").write(str(os.getpid()))
time.sleep(1000)
"#;

fn begun(context: &Context) -> Result<()> {
    dlm::fits(context, Dlm::Asks)?;
    let lab = dlm::boot(context, 2, "cman", Dlm::Asks)?;
    let (one, two) = (lab.guest(1), lab.guest(2));
    one.put("/tmp/other.py", OTHER_LINE)?;
    one.daemon("other", "python3 /tmp/other.py")?;
    one.wait_until("the line of node 7", LIMIT, "test -s /tmp/held")?;
    lab.guests().try_for_each(|guest| guest.start_o2bridged(&dlm::control()))?;
    let why = "another process holds it with another node id";
    let said = format!("grep -q '{why}' /lab/share/log/o2bridged.log");
    one.wait_until("the handshake is refused", LIMIT, &said)?;
    one.ok("kill -KILL $(cat /tmp/held)")?;
    lab.guests().try_for_each(|guest| bridge::wait_ready(guest, 2))?;
    lab.step("a line with other values was in the way, and was named");
    stock::mount(two, DISK)?;
    lab.step("n2 has mounted");

    let output = one.run(&format!("mount -t ocfs2 -o nosuchoption {DISK} {MOUNT}"), LIMIT)?;
    ensure!(output.exit != 0, "a mount with an unknown option succeeded");
    let log = one.log("o2bridged.log");
    ensure!(log.contains("service: ServiceName(\"ocfs2\")"), "the tool has not begun");
    dlm::is_unused(one)?;
    lab.step("a mount that failed leaves nothing");

    let uuid = seen::uuid(one, DISK)?;
    one.put("/tmp/beginner.py", BEGINNER)?;
    one.daemon("beginner", &format!("python3 /tmp/beginner.py {uuid}"))?;
    one.wait_until("it has begun", LIMIT, "grep -q '^STATUS 0 ' /tmp/begun")?;
    one.ok("o2bridge list | grep -q 'ocfs2 (granted)'")?;
    one.ok("kill -KILL $(cat /tmp/beginner)")?;
    dlm::is_unused(one)?;
    lab.step("a client that died leaves nothing");

    stock::mount(one, DISK)?;
    dlm::is_in_use(one)?;
    cross_over(&lab)?;
    dlm::end(&lab)
}

fn three(context: &Context) -> Result<()> {
    let lab = dlm::mounted(context, 3, "cman", Dlm::Asks)?;
    let fall = Fall::strike(&lab, &[3])?;
    let answered = fall.recovered()?;
    context.figure("of three: kill to access", answered - fall.killed);
    fall.order(Dlm::Asks)?;
    fall.come_back(Dlm::Asks)?;

    let fall = Fall::strike(&lab, &[2, 3])?;
    let answered = fall.recovered()?;
    context.figure("two at once: kill to access", answered - fall.killed);
    fall.order(Dlm::Asks)?;
    stock::umount(lab.guest(1))
}
