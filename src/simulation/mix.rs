//! What one seed's world is like: each draws its own mix of sizes, speeds and misfortunes, so that what one fault hides
//! another world without it shows.

use std::time::Duration;

use crate::dice::Dice;

/// Rates are in thousandths unless they say otherwise.
#[derive(Clone, Debug)]
pub struct Mix {
    pub members: usize,
    pub election_timeout: Duration,
    pub heartbeat: Duration,
    /// Sixteenths of it that a leader waits for entries to tell with them how far is committed.
    pub commit_delay: u32,
    /// Messages arrive in order, once, and are lost with their connection only, as on TCP.
    pub orderly: bool,
    pub lost: u64,
    pub twice: u64,
    /// Microseconds that a message takes.
    pub delay: (u64, u64),
    /// Now and then one takes this long.
    pub late: u64,
    /// Microseconds that a sync takes.
    pub sync: (u64, u64),
    pub hang: u64,
    /// Microseconds that the machine takes.
    pub apply: (u64, u64),
    /// How often something goes wrong, in milliseconds between two.
    pub fault_every: u64,
    /// Which kinds of faults there are in this world.
    pub faults: Vec<Fault>,
    /// Milliseconds between two calls.
    pub call_every: u64,
    pub patience: u64,
    pub tight: bool,
    pub snapshot_every_entries: u64,
    pub tail_bytes: usize,
    pub segment_bytes: u64,
    pub operate: u64,
    pub session_ttl: Duration,
    /// Machines that keep their state on a disk of their own.
    pub keeps: u64,
    /// Milliseconds of misfortune before everything heals.
    pub horizon: u64,
    /// Syncs are lies: the negative control, which must be found out.
    pub lying: bool,
}

/// A kind of misfortune.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    Kill,
    PowerCut,
    TotalPowerCut,
    Cut,
    OneWay,
    Isolate,
    Split,
    Clog,
    Disconnect,
    DiskFull,
    DiskError,
    SyncError,
    Hang,
    Rot,
    Drift,
    WallJump,
    Pause,
    SlowMachine,
    HaltingMachine,
    SnapshotFails,
    Stop,
    /// A write has gone to the wrong place of the disk.
    Misdirected,
    Wipe,
    /// A disk is wiped, and the node comes back under its id as if it were new.
    Amnesia,
    Moved,
    /// The process ends between two of the effects of one turn.
    Amid,
    /// What the leader sends waits about as long as the patience of the others: it is heard again amid their campaigns.
    Lull,
    /// The leader is cut off and asked for much, which comes to nothing: logs that part, memberships that are let go.
    Cornered,
    /// The leader is paused, and what it was answered before it slept it hears when it wakes.
    Nap,
    /// A newer version of the program is there and rolled out, or a node goes back to an older one.
    Release,
}

impl Fault {
    pub const ALL: [Self; 30] = [
        Self::Kill,
        Self::PowerCut,
        Self::TotalPowerCut,
        Self::Cut,
        Self::OneWay,
        Self::Isolate,
        Self::Split,
        Self::Clog,
        Self::Disconnect,
        Self::DiskFull,
        Self::DiskError,
        Self::SyncError,
        Self::Hang,
        Self::Rot,
        Self::Drift,
        Self::WallJump,
        Self::Pause,
        Self::SlowMachine,
        Self::HaltingMachine,
        Self::SnapshotFails,
        Self::Stop,
        Self::Misdirected,
        Self::Wipe,
        Self::Amnesia,
        Self::Moved,
        Self::Amid,
        Self::Lull,
        Self::Cornered,
        Self::Nap,
        Self::Release,
    ];
}

impl Mix {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let mut rare = |most: u64| if dice.chance(400) { 0 } else { dice.below(most) };
        let (lost, twice, late, hang) = (rare(150), rare(200), rare(40), rare(8));
        let election_timeout = Duration::from_millis(dice.one_of(&[150, 300, 300, 500]));
        let portion = dice.within(200, 900);
        let faults = Fault::ALL.into_iter().filter(|_| dice.chance(portion)).collect();
        Self {
            members: dice.one_of(&[1, 2, 3, 3, 3, 4, 5, 5, 5, 7]),
            heartbeat: election_timeout / dice.one_of(&[4, 6, 10]),
            election_timeout,
            orderly: dice.chance(400),
            lost,
            twice,
            delay: dice.one_of(&[(50, 500), (200, 2_000), (500, 20_000), (2_000, 60_000)]),
            late,
            sync: dice.one_of(&[(20, 200), (200, 3_000), (1_000, 15_000)]),
            hang,
            apply: dice.one_of(&[(5, 50), (50, 2_000), (500, 20_000)]),
            fault_every: dice.within(150, 2_000),
            faults,
            call_every: dice.one_of(&[10, 20, 50, 100]),
            patience: dice.one_of(&[50, 400, 3_000, 20_000]),
            tight: dice.chance(250),
            snapshot_every_entries: dice.one_of(&[5, 20, 40, 1_000_000]),
            tail_bytes: dice.one_of(&[0, 200, 2_000]),
            segment_bytes: dice.one_of(&[4_736, 16_384, 65_536]),
            operate: dice.one_of(&[0, 0, 20, 60]),
            session_ttl: Duration::from_millis(dice.one_of(&[500, 4_000, 3_600_000])),
            keeps: dice.one_of(&[0, 0, 500, 1_000]),
            commit_delay: dice.one_of(&[0, 1, 1, 8, 16]),
            horizon: 20_000,
            lying: false,
        }
    }
}
