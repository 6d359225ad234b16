//! Texts for those who run a node: a unit for systemd, a file to build a container from.

use clap::Subcommand;

use super::failure::Failure;
use super::output;

#[derive(Subcommand, Debug)]
pub(super) enum Service {
    /// A unit for systemd: it runs `graft start` with the settings in /etc/graft/graft.toml
    Systemd,
    /// A file to build a container image from, with the state machine in machine.py
    Container,
}

/// It is not started again after what another start would not mend: it was removed, or is another's, or its data are damaged.
/// A name that does not resolve yet, or a certificate that this clock does not believe yet, is well in a while.
const SYSTEMD: &str = "\
[Unit]
Description=A node of a Graft cluster
Documentation=https://github.com/9OP/Graft
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/bin/env graft start --config /etc/graft/graft.toml
WorkingDirectory=/var/lib/graft
StateDirectory=graft
StateDirectoryMode=0700
UMask=0077
User=graft
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=5 8
TimeoutStopSec=30
LimitNOFILE=65536
NoNewPrivileges=yes
PrivateTmp=yes
ProtectHome=yes
ProtectSystem=strict

[Install]
WantedBy=multi-user.target
";

const CONTAINER: &str = "\
FROM python:3.13-slim
RUN pip install --no-cache-dir graft-raft==VERSION
RUN useradd --system --create-home --home-dir /var/lib/graft graft
COPY machine.py /opt/graft/machine.py
USER graft
WORKDIR /var/lib/graft
VOLUME /var/lib/graft
EXPOSE 7001
STOPSIGNAL SIGTERM
ENV PYTHONPATH=/opt/graft
# Give GRAFT_ADDRESS, GRAFT_CLUSTER, GRAFT_MACHINE=machine:Class, GRAFT_ID, GRAFT_CA, GRAFT_CERT and GRAFT_KEY when it is run.
ENTRYPOINT [\"graft\"]
CMD [\"start\", \"--data-dir\", \"/var/lib/graft/data\"]
";

pub(super) fn print(service: &Service) -> Result<(), Failure> {
    match service {
        Service::Systemd => output::script(SYSTEMD.as_bytes()),
        Service::Container => output::script(CONTAINER.replace("VERSION", env!("CARGO_PKG_VERSION")).as_bytes()),
    }
}
