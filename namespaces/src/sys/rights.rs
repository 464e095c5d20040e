//! What this kernel knows of rights: capabilities, Landlock.

use crate::CapabilitySet;

/// How many, and which of those that this crate knows.
pub(crate) fn known_capabilities() -> Result<(u8, CapabilitySet), i32> {
    let mut count = 0;
    while knows(count)? {
        count += 1;
    }
    Ok((count, CapabilitySet::all().iter().filter(|one| one.number() < count).collect()))
}

fn knows(number: u8) -> Result<bool, i32> {
    // SAFETY: numbers only; it reads a bit of this thread's bounding set, or refuses.
    let result = unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) };
    match super::last_errno() {
        _ if result >= 0 => Ok(true),
        libc::EINVAL => Ok(false),
        // Not to be mistaken: what is unknown is not dropped.
        errno => Err(errno),
    }
}

/// The version of Landlock that it has.
#[cfg(feature = "landlock")]
pub(crate) fn landlock_abi() -> Result<u32, i32> {
    const VERSION: libc::c_ulong = 1;
    // SAFETY: this flag asks for a null pointer, and makes nothing.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0_usize, 0_usize, VERSION) };
    u32::try_from(version).map_err(|_| super::last_errno())
}
