//! Who has a port.

use std::fs;
use std::net::SocketAddr;

/// The process that listens on this port, as far as this user may see it; Linux only.
pub(super) fn of(address: SocketAddr) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .find_map(|table| {
            table
                .lines()
                .find_map(|line| listening(line, address.port()))
        })?;
    let wanted = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        // there are others, such as `self`
        let name = process.file_name();
        if name
            .to_str()
            .is_none_or(|name| name.parse::<u32>().is_err())
        {
            continue;
        }
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let has_it = |file: std::io::Result<fs::DirEntry>| {
            file.and_then(|file| fs::read_link(file.path()))
                .is_ok_and(|link| link.as_os_str() == wanted.as_str())
        };
        if files.into_iter().any(has_it) {
            let name = fs::read_to_string(process.path().join("comm")).ok()?;
            return Some(format!(
                "{} (pid {})",
                name.trim(),
                process.file_name().to_string_lossy()
            ));
        }
    }
    None
}

/// The socket of a line of the table, if it listens on this port: `sl local_address rem_address st … inode`.
fn listening(line: &str, port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace();
    let (_, local) = fields.nth(1)?.rsplit_once(':')?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    (u16::from_str_radix(local, 16) == Ok(port) && state == LISTEN).then(|| inode.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_told() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = of(socket.local_addr().unwrap());
        if cfg!(target_os = "linux") {
            let (found, us) = (found.unwrap(), std::process::id());
            assert!(found.contains(&format!("(pid {us})")), "{found}, {us}");
        }
    }
}
