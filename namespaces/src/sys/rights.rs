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
    in_bounding_set(number).map(|there| there.is_some())
}

/// Nothing if the kernel knows no such capability.
fn in_bounding_set(number: u8) -> Result<Option<bool>, i32> {
    // SAFETY: numbers only; it reads a bit of this thread's bounding set, or refuses.
    let result = unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(number), 0, 0, 0) };
    match super::last_errno() {
        _ if result >= 0 => Ok(Some(result == 1)),
        libc::EINVAL => Ok(None),
        // Not to be mistaken: what is unknown is not dropped.
        errno => Err(errno),
    }
}

/// What a thread has: the kernel's numbers, also those that this crate does not know.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rights {
    pub(crate) permitted: u64,
    pub(crate) bounding: u64,
    pub(crate) inheritable: u64,
    pub(crate) securebits: u32,
}

impl Rights {
    /// This thread's. With the call that failed.
    pub(crate) fn own() -> Result<Self, (&'static str, i32)> {
        const VERSION_3: u32 = 0x2008_0522;
        // A version and process 0, which is this one; then effective, permitted and inheritable, of the low bits and of the high ones.
        let (header, mut data) = ([VERSION_3, 0], [0_u32; 6]);
        // SAFETY: for this version the kernel reads two numbers and writes six.
        let result = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) };
        if result != 0 {
            return Err(("capget", super::last_errno()));
        }
        let [_, permitted, inheritable, _, permitted_high, inheritable_high] = data.map(u64::from);
        let mut bounding = 0;
        for number in 0..64 {
            match in_bounding_set(number).map_err(|errno| ("prctl", errno))? {
                Some(true) => bounding |= 1 << number,
                Some(false) => {}
                None => break,
            }
        }
        // SAFETY: this request takes no argument and changes nothing.
        let securebits = unsafe { libc::prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0) };
        let securebits = u32::try_from(securebits).map_err(|_| ("prctl", super::last_errno()))?;
        let (permitted, inheritable) = (permitted | permitted_high << 32, inheritable | inheritable_high << 32);
        Ok(Rights { permitted, bounding, inheritable, securebits })
    }
}

/// Of this thread, and of all that it starts.
pub(crate) fn has_no_new_privs() -> Result<bool, (&'static str, i32)> {
    // SAFETY: this request takes no argument and changes nothing.
    match unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) } {
        result @ 0.. => Ok(result == 1),
        _ => Err(("prctl", super::last_errno())),
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
