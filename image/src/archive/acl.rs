//! Access control lists, `acl(5)`: archives have them as text (`SCHILY.acl.access`), the kernel as the attribute `system.posix_acl_access`.

/// The version of the attribute's format.
const VERSION: u32 = 2;
/// The id of an entry that has none.
const NO_ID: u32 = u32::MAX;

const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// The kernel's form of a list in text: `user::rwx,user:lisa:r-x:1000,…`, in lines or between commas. `None` if it is no such list, or if it
/// names users by names alone: whose numbers those are, only the image knows.
pub(super) fn of_text(text: &[u8]) -> Option<Vec<u8>> {
    let lines = text.split(|b| matches!(b, b',' | b'\n'));
    let mut entries = lines.map(<[u8]>::trim_ascii).filter(|l| !l.is_empty()).map(entry).collect::<Option<Vec<_>>>()?;
    entries.sort_unstable();
    let mut attribute = VERSION.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        attribute.extend_from_slice(&tag.to_le_bytes());
        attribute.extend_from_slice(&permissions.to_le_bytes());
        attribute.extend_from_slice(&id.to_le_bytes());
    }
    Some(attribute)
}

/// Tag, id and permissions of one entry.
fn entry(text: &[u8]) -> Option<(u16, u32, u16)> {
    // What comes after it is getfacl's comment on what the mask leaves.
    let text = text.split(|b| b.is_ascii_whitespace() || *b == b'#').next()?;
    let mut fields = text.split(|b| *b == b':');
    let (tag, name, permissions) = (fields.next()?, fields.next()?, fields.next()?);
    // star and bsdtar add the number to the name.
    let number = fields.next().or((!name.is_empty()).then_some(name));
    if fields.next().is_some() {
        return None;
    }
    let id = match number {
        Some(digits) => Some(std::str::from_utf8(digits).ok()?.parse().ok().filter(|id| *id != NO_ID)?),
        None => None,
    };
    let tag = match (tag, id) {
        (b"user" | b"u", None) => USER_OBJ,
        (b"user" | b"u", Some(_)) => USER,
        (b"group" | b"g", None) => GROUP_OBJ,
        (b"group" | b"g", Some(_)) => GROUP,
        (b"mask" | b"m", None) => MASK,
        (b"other" | b"o", None) => OTHER,
        _ => return None,
    };
    let bit = |bits: u16, byte: &u8| match byte {
        b'r' => Some(bits | 4),
        b'w' => Some(bits | 2),
        b'x' => Some(bits | 1),
        b'-' => Some(bits),
        _ => None,
    };
    Some((tag, id.unwrap_or(NO_ID), permissions.iter().try_fold(0, bit)?))
}

/// The list with other ids. `None` if it is not one, or has an id for which there is no other.
pub(crate) fn map_ids(
    attribute: &[u8],
    user: impl Fn(u32) -> Option<u32>,
    group: impl Fn(u32) -> Option<u32>,
) -> Option<Vec<u8>> {
    let (version, entries) = attribute.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || entries.len() % 8 != 0 {
        return None;
    }
    let mut mapped = version.to_vec();
    for entry in entries.chunks_exact(8) {
        let (head, id) = entry.split_first_chunk::<4>()?;
        let id = u32::from_le_bytes(id.try_into().ok()?);
        let id = match head.first_chunk::<2>().map(|tag| u16::from_le_bytes(*tag))? {
            USER => user(id)?,
            GROUP => group(id)?,
            _ => id,
        };
        mapped.extend_from_slice(head);
        mapped.extend_from_slice(&id.to_le_bytes());
    }
    Some(mapped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let one = |(tag, permissions, id): &(u16, u16, u32)| {
            [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        [VERSION.to_le_bytes().to_vec(), entries.iter().flat_map(one).collect()].concat()
    }

    #[test]
    fn text_becomes_what_the_kernel_takes() {
        let expected = bytes(&[(1, 7, NO_ID), (2, 5, 1000), (4, 4, NO_ID), (8, 1, 7), (16, 7, NO_ID), (32, 0, NO_ID)]);
        for text in [
            "user::rwx,user:1000:r-x,group::r--,group:7:--x,mask::rwx,other::---",
            "user::rwx\ngroup::r--\nother::---\nuser:lisa:r-x:1000\t#effective:r-x\nmask::rwx\ngroup:staff:--x:7\n",
        ] {
            assert_eq!(of_text(text.as_bytes()).unwrap(), expected, "{text}");
        }
        for text in ["user:lisa:r-x", "user::rwz", "user", "mask:5:rwx", "user:4294967295:r--", "user:1:r:2:3", "x::r"]
        {
            assert_eq!(of_text(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn ids_are_mapped() {
        let list = of_text(b"user::rwx,user:1:r--,group:2:r--,group::---,mask::r--,other::---").unwrap();
        let expected = of_text(b"user::rwx,user:101:r--,group:202:r--,group::---,mask::r--,other::---");
        assert_eq!(map_ids(&list, |u| Some(u + 100), |g| Some(g + 200)), expected);
        assert_eq!(map_ids(&list, |_| None, Some), None);
        assert_eq!(map_ids(&list[1..], Some, Some), None);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80), text in "([ugmo]:[0-9a]{0,2}:[rwx-]{0,3}[,\n]?){0,4}") {
            let _ = map_ids(&bytes, Some, Some);
            let _ = of_text(&bytes);
            if let Some(list) = of_text(text.as_bytes()) {
                prop_assert_eq!(map_ids(&list, Some, Some), Some(list));
            }
        }
    }
}
