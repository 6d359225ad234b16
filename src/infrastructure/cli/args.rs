//! What can be said on the command line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use graft_domain::ClusterId;

use super::bench::Bench;
use super::check::Check;
use super::offline::{Log, Recover, Restore};
use super::service::Service;
use super::settings::{Config, Sets, Setting};
use super::tls::Tls;
use crate::infrastructure::runtime::{Source, cluster_id};

/// Keeps the state of a Python program alive on several machines: runs nodes, asks clusters and changes them.
#[derive(Parser, Debug)]
#[command(name = "graft", version, max_term_width = 100, after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  graft start 127.0.0.1:7001 --cluster 127.0.0.1:7001 --machine bank.py:Bank    found a cluster
  graft start 127.0.0.1:7002 --cluster 127.0.0.1:7001 --machine bank.py:Bank    join it
  export GRAFT_CLUSTER=127.0.0.1:7001
  graft status
  graft execute deposit who=ann amount=5
  graft query balance who=ann
  graft stop 127.0.0.1:7002                                                      remove and shut down

Exit status: 0 done, 1 error, 2 usage, 3 nothing reachable, 4 no leader or majority, 5 refused, 6 outcome unknown,
7 certificate or permission, 8 damaged data, 10 not healthy, 130 interrupted. `graft explain` tells what each error means.";

#[derive(Args, Debug)]
pub(super) struct Global {
    /// Addresses of the cluster, `host:port` with commas: any live member does [env: `GRAFT_CLUSTER`]
    #[arg(short, long, global = true, value_delimiter = ',', value_name = "ADDR")]
    pub(super) cluster: Vec<String>,
    /// Speak with members of this cluster alone, as `graft status` names it [env: `GRAFT_CLUSTER_ID`]
    #[arg(long, global = true, value_parser = cluster, value_name = "ID")]
    pub(super) cluster_id: Option<ClusterId>,
    /// Form of the answer, and with json and jsonl of an error, too
    #[arg(short, long, global = true, value_enum, default_value_t = Form::Table, value_name = "FORM")]
    pub(super) output: Form,
    /// How long it may take, in seconds [default: 10, for a change of members 300]
    #[arg(long, global = true, value_parser = seconds, value_name = "SECONDS", allow_negative_numbers = true)]
    pub(super) timeout: Option<f64>,
    /// A file of settings [env: `GRAFT_CONFIG`] [default: graft.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) secrets: Secrets,
}

/// What connections are secured with.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Security")]
pub(super) struct Secrets {
    /// The authority to believe, or several, in PEM [env: `GRAFT_CA`]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// The certificate to show, in PEM [env: `GRAFT_CERT`]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) cert: Option<PathBuf>,
    /// Its key, in PEM [env: `GRAFT_KEY`]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) key: Option<PathBuf>,
    /// Go beyond this machine in plain text, where nobody else reaches the network [env: `GRAFT_INSECURE`]
    #[arg(long, global = true)]
    pub(super) insecure: bool,
}

impl Secrets {
    /// The three files, if they were given; it is all or none once settings are filled in.
    pub(super) fn files(&self) -> Option<(PathBuf, PathBuf, PathBuf)> {
        let Self { ca: Some(ca), cert: Some(cert), key: Some(key), .. } = self.clone() else { return None };
        Some((ca, cert, key))
    }

    pub(super) fn source(&self) -> Option<Source> {
        self.files().map(|(ca, cert, key)| Source::Files { ca, cert, key })
    }
}

pub(super) fn cluster(text: &str) -> Result<ClusterId, String> {
    cluster_id(text).map_err(|bad| bad.0)
}

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    // Those of settings, which a file has for nodes and for this command.
    let units = [("us", 1e-6), ("ms", 0.001), ("min", 60.0), ("s", 1.0), ("h", 3_600.0), ("d", 86_400.0)];
    let unit = units.iter().find_map(|(name, unit)| text.strip_suffix(name).map(|number| (number, *unit)));
    let (number, unit) = unit.unwrap_or((text, 1.0));
    let seconds = unit * number.trim().parse::<f64>().map_err(|_| "write seconds, such as 2.5, or 500ms")?;
    let sane = seconds.is_finite() && (0.001..=86_400.0).contains(&seconds);
    sane.then_some(seconds).ok_or_else(|| "between 0.001 and 86400 seconds".to_owned())
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(super) enum Form {
    /// For people
    Table,
    /// One document, with a schema tag
    Json,
    /// A document for each item, a line each
    Jsonl,
    /// Values alone, tabs between them
    Plain,
}

impl Form {
    pub(super) fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Jsonl)
    }
}

#[derive(Subcommand, Debug)]
pub(super) enum Verb {
    /// Run a node: with --cluster equal to ADDR it founds a cluster, else it joins; the same line at every start
    Start(Start),
    /// Run a cluster on this machine, secured, to try things out, until Ctrl-C
    Dev(Dev),
    /// Remove a member from the cluster and shut its node down
    Stop {
        /// Its address or id
        member: String,
    },
    /// Have every replica run a command
    #[command(visible_alias = "command")]
    Execute(Call),
    /// Ask the state
    Query {
        #[command(flatten)]
        call: Call,
        /// What the answer must have seen
        #[arg(long, value_enum, default_value_t = Consistency::Linearizable)]
        consistency: Consistency,
    },
    /// Show how the cluster is
    Status,
    /// Say in words what stands in the way of work, if anything
    Why,
    /// Exit with 0 if all is well, with 10 if not, and say what to do
    Health {
        /// Wait until all is well, at most so many seconds
        #[arg(long, value_parser = seconds, value_name = "SECONDS", allow_negative_numbers = true)]
        wait: Option<f64>,
    },
    /// Show the cluster as it changes, until Ctrl-C
    Top {
        /// Seconds from one look to the next
        #[arg(long, value_parser = seconds, value_name = "SECONDS", default_value_t = 1.0)]
        interval: f64,
        /// Looks to take [default: without end on a terminal, 1 elsewhere]
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
    },
    /// Show the members
    Configuration,
    /// Add a running node; it gets the log first, and votes when it has it
    Add(Add),
    /// Remove a member
    Remove {
        /// Its address or id
        member: String,
    },
    /// Change the membership
    #[command(subcommand)]
    Member(Member),
    /// Show who leads, or hand leadership over
    #[command(args_conflicts_with_subcommands = true)]
    Leader {
        #[command(subcommand)]
        leader: Option<Leader>,
        /// Address or id of the member that is to lead
        to: Option<String>,
    },
    /// Take a snapshot on the member that answers
    Snapshot,
    /// Compare the replicas' states now: exit with 0 if all are the same, with 10 if one differs or a member did not answer
    Verify,
    /// Write one file with the state, every command that had returned to anybody before included
    Backup {
        /// Where, on this machine: nothing may be there
        file: PathBuf,
    },
    /// Make a data directory that begins with the state of a backup, for a new cluster
    Restore(Restore),
    /// Go on with what is left of a cluster whose majority is lost
    Recover(Recover),
    /// Look into the data directory of a node that does not run
    #[command(subcommand)]
    Log(Log),
    /// Make certificates, look at them, try them
    #[command(subcommand)]
    Tls(Tls),
    /// Show what is set in graft.toml, the environment and the command line
    #[command(subcommand)]
    Config(Config),
    /// Say what an error means and what to do
    Explain {
        /// Such as `NO_QUORUM`; without it, all of them
        code: Option<String>,
    },
    /// See whether this machine can carry a node: disk, clocks, ports, limits, certificates, timeouts
    Check(Check),
    /// Make one call again and again, and say how fast it is answered; what it changes is changed
    Bench(Bench),
    /// Print what runs a node as a service
    #[command(subcommand)]
    Service(Service),
    /// Print a completion script for a shell
    Completions { shell: Shell },
    /// Write the manual pages
    Man {
        /// Where to
        #[arg(value_name = "DIRECTORY")]
        directory: PathBuf,
    },
}

/// A node to run.
#[derive(Args, Clone, Debug)]
pub struct Start {
    /// Its address, `host:port`, under which the others reach it
    #[arg(value_name = "ADDR")]
    pub address: Option<String>,
    /// The class of the state machine: `package.module:Class` or `file.py:Class`
    #[arg(long, value_name = "WHERE:CLASS")]
    pub machine: Option<String>,
    /// Its name among the members, for ever [default: ADDR]
    #[arg(long)]
    pub id: Option<String>,
    /// Where it keeps its log and snapshots [default: graft-ID]
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: Option<PathBuf>,
    /// Where to listen, if that differs from ADDR
    #[arg(long, value_name = "ADDR")]
    pub bind: Option<String>,
    /// Where metrics are read, over HTTP at /metrics [default: nowhere]
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<String>,
    #[command(flatten)]
    pub sets: Sets,
    /// What follows is filled in from the options for every verb, and from settings.
    #[arg(skip)]
    pub cluster: Vec<String>,
    #[arg(skip)]
    pub tls: Option<(PathBuf, PathBuf, PathBuf)>,
    #[arg(skip)]
    pub insecure: bool,
    /// As `graft.Config` takes them.
    #[arg(skip)]
    pub settings: BTreeMap<String, Setting>,
    /// Whether errors are to be told as JSON.
    #[arg(skip)]
    pub json: bool,
}

/// A cluster on this machine.
#[derive(Args, Clone, Debug)]
pub struct Dev {
    /// The class of the state machine: `package.module:Class` or `file.py:Class` [default: keys and values]
    #[arg(long, value_name = "WHERE:CLASS")]
    pub machine: Option<String>,
    /// How many nodes
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=15))]
    pub nodes: u8,
    /// Where to keep what they have, for the next time [default: nothing is kept]
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: Option<PathBuf>,
    /// Whether errors are to be told as JSON.
    #[arg(skip)]
    pub json: bool,
}

impl Start {
    /// The id that was chosen, or the one that the address gives.
    pub fn id(&self) -> String {
        self.id.clone().unwrap_or_else(|| id_of(self.address.as_deref().unwrap_or_default()))
    }
}

/// The id of a node at this address for which none was chosen: the address, but for the brackets of IPv6.
pub(super) fn id_of(address: &str) -> String {
    address.replace(['[', ']'], "")
}

/// A call of the machine.
#[derive(Args, Debug)]
pub(super) struct Call {
    /// Name of the command or query
    #[arg(required_unless_present_any = ["raw", "file"])]
    pub(super) name: Option<String>,
    /// Arguments as KEY=VALUE, of the type that the machine wants: a number, true, null, JSON or text. KEY:=JSON is never text
    #[arg(value_name = "KEY=VALUE")]
    pub(super) arguments: Vec<String>,
    /// For a raw machine: this text
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["name", "file"])]
    pub(super) raw: Option<String>,
    /// For a raw machine: the bytes of this file, - for stdin
    #[arg(short, long, value_name = "FILE", conflicts_with = "name")]
    pub(super) file: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
pub(super) enum Consistency {
    /// Every command that had returned to anybody before, confirmed by a majority
    Linearizable,
    /// The same, on the word of the leader's lease
    Lease,
    /// What the member that is asked has, however old
    Stale,
}

#[derive(Args, Debug)]
pub(super) struct Add {
    /// `ID ADDR`, or the address alone if the id is the one that `graft start` gives it
    #[arg(num_args = 1..=2, required = true, value_names = ["ID", "ADDR"])]
    pub(super) member: Vec<String>,
    /// It gets the log and never votes
    #[arg(long)]
    pub(super) learner: bool,
}

#[derive(Subcommand, Debug)]
pub(super) enum Member {
    /// Show the members
    List,
    /// Add a running node
    Add(Add),
    /// Remove a member
    Remove { member: String },
    /// Have a learner vote
    Promote { member: String },
    /// Have a voter not vote any more
    Demote { member: String },
    /// Put a running node into the place of a member, which may be dead
    Replace { old: String, new: String, address: String },
    /// Make these, as ID=ADDR, the voters and the only members
    Apply {
        #[arg(required = true, value_name = "ID=ADDR")]
        members: Vec<String>,
    },
    /// Give up the change that is under way
    Cancel,
}

#[derive(Subcommand, Debug)]
pub(super) enum Leader {
    /// Show who leads
    Show,
    /// Hand leadership over, to this member or to the best one
    Transfer { to: Option<String> },
}
