//! The text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use buoy_api::ip::Family;
use ipnet::IpNet;

use super::filters::{filters, kernel, number};
use super::{BirdRow, IMPORT_LIMIT, LogLevel, Pool, Reach, Router, Section, Session, Side, symbols};

/// How long a restarted daemon waits for peers that do not come back, in seconds: so long nothing new is announced.
const RESTART_WAIT: u32 = 5;
/// BFD: a peer that is silent for so many intervals is gone.
const BFD_MULTIPLIER: u32 = 3;
/// BFD: milliseconds between two packets.
const BFD_INTERVAL: u32 = 300;
/// Bytes after which a log begins anew.
const LOG_SIZE: u32 = 1 << 20;

/// The configuration that rows amount to; none without a [`Section::Router`].
pub fn render<'a>(rows: impl IntoIterator<Item = (&'a Section, &'a BirdRow)>) -> Option<String> {
    let rows: Vec<(&Section, &BirdRow)> = rows.into_iter().collect();
    let router = rows.iter().find_map(|(_, row)| match row {
        BirdRow::Router(router) => Some(router),
        _ => None,
    })?;
    let pools: Vec<Pool> = rows.iter().filter_map(|(_, row)| pool(row)).collect();
    let sessions = sessions(&rows);
    let mut text = global(router) + &filters(&pools) + &kernel();
    text += &blocks(&rows);
    if sessions.iter().any(|(_, session)| session.bfd) {
        text += &bfd();
    }
    for (symbol, session) in sessions {
        text += &protocol(&symbol, session);
    }
    Some(text)
}

fn pool(row: &BirdRow) -> Option<Pool> {
    match row {
        BirdRow::Pool(pool) => Some(*pool),
        _ => None,
    }
}

/// Sessions by their symbols, in order.
fn sessions<'a>(rows: &[(&'a Section, &'a BirdRow)]) -> Vec<(String, &'a Session)> {
    let of: BTreeMap<&Section, &Session> = rows
        .iter()
        .filter_map(|(section, row)| match row {
            BirdRow::Session(session) => Some((*section, session.as_ref())),
            _ => None,
        })
        .collect();
    let symbols = symbols(rows.iter().map(|(section, _)| *section));
    symbols
        .into_iter()
        .filter_map(|(symbol, section)| Some((symbol, *of.get(section)?)))
        .collect()
}

fn global(router: &Router) -> String {
    let mut text = "# Written by buoy-agent, which writes it anew whenever records change.\n".to_owned();
    if let Some(classes) = classes(router.log) {
        let _ = writeln!(text, "log \"bird.log\" {LOG_SIZE} \"bird.log.1\" {classes};");
    }
    let _ = writeln!(text, "timeformat protocol \"%Y-%m-%dT%H:%M:%S\";");
    let _ = writeln!(text, "router id {};", router.id);
    let _ = writeln!(text, "graceful restart wait {RESTART_WAIT};");
    text
}

fn classes(level: LogLevel) -> Option<&'static str> {
    match level {
        LogLevel::Debug => Some("all"),
        LogLevel::Info => Some("{ info, remote, warning, error, auth, fatal, bug }"),
        LogLevel::Warning => Some("{ warning, error, auth, fatal, bug }"),
        LogLevel::Error => Some("{ error, fatal, bug }"),
        LogLevel::Fatal => Some("{ fatal, bug }"),
        LogLevel::None => None,
    }
}

/// Blocks of this node. What nobody has in them is unreachable; what somebody has is a longer prefix in the kernel.
fn blocks(rows: &[(&Section, &BirdRow)]) -> String {
    let mut text = String::new();
    for family in Family::ALL {
        let blocks: Vec<&IpNet> = rows
            .iter()
            .filter_map(|(section, row)| match (section, row) {
                (Section::Block(cidr), BirdRow::Block) if Family::of_net(cidr) == family => Some(cidr),
                _ => None,
            })
            .collect();
        if blocks.is_empty() {
            continue;
        }
        let n = number(family);
        let _ = write!(text, "\nprotocol static buoy_blocks{n} {{\n  ipv{n};\n");
        for block in blocks {
            let _ = writeln!(text, "  route {block} unreachable;");
        }
        text += "}\n";
    }
    text
}

fn bfd() -> String {
    let times = format!(
        "min rx interval {BFD_INTERVAL} ms; min tx interval {BFD_INTERVAL} ms; multiplier {BFD_MULTIPLIER};"
    );
    format!("\nprotocol bfd buoy_bfd {{\n  interface \"*\" {{ {times} }};\n  multihop {{ {times} }};\n}}\n")
}

fn protocol(symbol: &str, session: &Session) -> String {
    let mut text = format!("\nprotocol bgp {symbol} {{\n");
    for line in options(session) {
        let _ = writeln!(text, "  {line};");
    }
    let n = number(session.family());
    let side = match session.side {
        Side::Node => format!("import filter buoy_from_mesh; export filter buoy_to_mesh{n};"),
        Side::External => format!(
            "import filter buoy_from_outside{n}; export filter buoy_to_outside{n}; import limit {IMPORT_LIMIT} action block;"
        ),
    };
    let _ = writeln!(text, "  ipv{n} {{ next hop self; {side} }};");
    text + "}\n"
}

fn options(session: &Session) -> Vec<String> {
    let local = session
        .local
        .map(|address| format!(" {address}"))
        .unwrap_or_default();
    let mut lines = vec![
        format!("local{local} port {} as {}", session.local_port, session.local_as),
        format!(
            "neighbor {} port {} as {}",
            session.remote, session.remote_port, session.remote_as
        ),
        match session.reach {
            Reach::Direct => "direct".to_owned(),
            Reach::Routed => "multihop".to_owned(),
            Reach::Within(hops) => format!("multihop {hops}"),
        },
    ];
    if session.ttl_security {
        lines.push("ttl security on".to_owned());
    }
    // A new owner must not wait for a peer longer than it has to.
    lines.extend(
        [
            "connect delay time 1",
            "connect retry time 2",
            "error wait time 1, 5",
        ]
        .map(str::to_owned),
    );
    lines.push("graceful restart on".to_owned());
    let seconds = [
        ("graceful restart time", session.restart),
        ("hold time", session.hold),
        ("keepalive time", session.keepalive),
    ];
    lines.extend(
        seconds
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name} {}", value?))),
    );
    if session.bfd {
        lines.push("bfd on".to_owned());
    }
    // The epoch travels as local preference, which peers of another AS ignore unless they are told.
    if session.side == Side::Node && session.local_as != session.remote_as {
        lines.push("allow bgp_local_pref on".to_owned());
    }
    if let Some(password) = &session.password {
        lines.push(format!("password \"{}\"", password.as_str()));
    }
    lines
}
