//! An empty ext4, as bytes: what mkfs.ext4(8) would make, without a program to be started and found. Pure.
//!
//! Blocks of 4 KiB, groups of 32,768 of them; an inode table in each group, which a hole in the image leaves full of zeros; a journal. No
//! checksums and nothing to be resized: it is mounted by whoever made it, and deleted after that. The layout is that of the kernel's
//! `Documentation/filesystems/ext4`.

use std::ops::Range;

/// Of a block, in bytes.
pub(super) const BLOCK: u64 = 4096;
const PER_GROUP: u64 = 8 * BLOCK;
const INODE: u64 = 256;
const PER_BLOCK: u64 = BLOCK / INODE;
const DESCRIPTOR: u64 = 32;

const ROOT: u64 = 2;
const JOURNAL: u64 = 8;
/// The first that is not reserved, for `lost+found`.
const FIRST: u64 = 11;

/// How large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// Blocks that files and directories can have.
    pub(super) blocks: u64,
    /// Files and directories.
    pub(super) inodes: u64,
}

/// Where everything is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    blocks: u64,
    inodes_per_group: u64,
    journal: u64,
}

/// Some bytes of the image, and where they begin. What is in none of them is zero.
pub(super) type Piece = (u64, Vec<u8>);

impl Layout {
    /// The smallest that has room for as much. `None`: no ext4 of this sort has.
    pub(super) fn new(size: Size) -> Option<Self> {
        // What it keeps back for the blocks that tell where data is: a fiftieth, up to 4096.
        let kept_back = |blocks: u64| (blocks / 50).min(4096);
        let wanted = size.blocks.checked_add(2)?;
        let mut layout = Layout { blocks: wanted, inodes_per_group: 0, journal: 0 };
        // What is needed to describe blocks needs blocks.
        for _ in 0..16 {
            let groups = layout.groups();
            let inodes = size.inodes.saturating_add(FIRST).div_ceil(groups).next_multiple_of(PER_BLOCK);
            layout.inodes_per_group = inodes.min(PER_GROUP);
            layout.journal = if layout.blocks < PER_GROUP { 1024 } else { 4096 };
            let overhead: u64 = (0..groups).map(|group| layout.overhead(group)).sum();
            let mut blocks = wanted + overhead + layout.journal + kept_back(layout.blocks);
            // The last group, too, has to have a place for its own things, and a few more.
            let last = blocks.div_ceil(PER_GROUP) - 1;
            blocks = blocks.max(last * PER_GROUP + layout.overhead(last) + 64);
            if u32::try_from(blocks).is_err() || blocks.div_ceil(PER_GROUP) * layout.inodes_per_group > u32::MAX.into()
            {
                return None;
            }
            if blocks == layout.blocks {
                break;
            }
            layout.blocks = blocks.max(layout.blocks);
        }
        // What the loop may not have settled is a few blocks, but never too few for the groups themselves.
        let last = layout.groups() - 1;
        layout.blocks = layout.blocks.max(last * PER_GROUP + layout.overhead(last) + 64);
        Some(layout)
    }

    /// Of the image, in bytes.
    pub(super) fn length(self) -> u64 {
        self.blocks * BLOCK
    }

    fn groups(self) -> u64 {
        self.blocks.div_ceil(PER_GROUP)
    }

    /// The blocks of a group.
    fn range(self, group: u64) -> Range<u64> {
        group * PER_GROUP..((group + 1) * PER_GROUP).min(self.blocks)
    }

    /// Blocks of the table of all groups.
    fn descriptors(self) -> u64 {
        (self.groups() * DESCRIPTOR).div_ceil(BLOCK)
    }

    fn table(self) -> u64 {
        self.inodes_per_group / PER_BLOCK
    }

    /// Where a group's bitmap of blocks is; that of its inodes and its table of inodes follow.
    fn bitmaps(self, group: u64) -> u64 {
        group * PER_GROUP + if has_superblock(group) { 1 + self.descriptors() } else { 0 }
    }

    /// How many blocks of a group describe it.
    fn overhead(self, group: u64) -> u64 {
        self.bitmaps(group) - group * PER_GROUP + 2 + self.table()
    }

    /// Where the journal begins; the root's block and that of `lost+found` follow.
    fn journal_block(self) -> u64 {
        self.overhead(0)
    }

    fn root_block(self) -> u64 {
        self.journal_block() + self.journal
    }

    /// Of a group, the blocks that are in use from its beginning.
    fn used(self, group: u64) -> u64 {
        if group == 0 { self.root_block() + 2 } else { self.overhead(group) }
    }

    fn used_inodes(group: u64) -> u64 {
        if group == 0 { FIRST } else { 0 }
    }

    fn free(self, group: u64) -> u64 {
        let range = self.range(group);
        range.end - range.start - self.used(group)
    }

    /// The whole image.
    pub(super) fn pieces(self, identity: [u8; 16]) -> Vec<Piece> {
        let table: Vec<u8> = (0..self.groups()).flat_map(|group| self.descriptor(group)).collect();
        let mut pieces = Vec::new();
        for group in 0..self.groups() {
            let first = self.range(group).start;
            if has_superblock(group) {
                let offset = if group == 0 { 1024 } else { 0 };
                pieces.push((first * BLOCK + offset, self.superblock(group, identity)));
                pieces.push(((first + 1) * BLOCK, table.clone()));
            }
            let range = self.range(group);
            let at = self.bitmaps(group) * BLOCK;
            pieces.push((at, bitmap(self.used(group), range.end - range.start)));
            pieces.push((at + BLOCK, bitmap(Self::used_inodes(group), self.inodes_per_group)));
        }
        let inode = |number: u64| (self.bitmaps(0) + 2) * BLOCK + (number - 1) * INODE;
        let directory = |links, block| self::inode(0o040_755, links, block, 1);
        pieces.push((inode(ROOT), directory(3, self.root_block())));
        pieces.push((inode(JOURNAL), self::inode(0o100_600, 1, self.journal_block(), self.journal)));
        pieces.push((inode(FIRST), directory(2, self.root_block() + 1)));
        pieces.push((self.journal_block() * BLOCK, journal(self.journal, identity)));
        pieces.push((self.root_block() * BLOCK, entries(&[(ROOT, "."), (ROOT, ".."), (FIRST, "lost+found")])));
        pieces.push(((self.root_block() + 1) * BLOCK, entries(&[(FIRST, "."), (ROOT, "..")])));
        pieces
    }

    fn descriptor(self, group: u64) -> Vec<u8> {
        let (bitmaps, mut bytes) = (self.bitmaps(group), Bytes::new(DESCRIPTOR));
        bytes.u32(0, bitmaps).u32(4, bitmaps + 1).u32(8, bitmaps + 2);
        bytes.u16(12, self.free(group)).u16(14, self.inodes_per_group - Self::used_inodes(group));
        bytes.u16(16, if group == 0 { 2 } else { 0 });
        bytes.0
    }

    fn superblock(self, group: u64, identity: [u8; 16]) -> Vec<u8> {
        let free: u64 = (0..self.groups()).map(|group| self.free(group)).sum();
        let inodes = self.groups() * self.inodes_per_group;
        let mut bytes = Bytes::new(1024);
        bytes.u32(0, inodes).u32(4, self.blocks).u32(12, free).u32(16, inodes - FIRST);
        // Blocks, and clusters, of 1024 << 2; so many of each in a group.
        bytes.u32(24, 2).u32(28, 2).u32(32, PER_GROUP).u32(36, PER_GROUP).u32(40, self.inodes_per_group);
        // Never to be checked by count; the magic number; clean; read-only after an error; revision 1.
        bytes.u16(54, 0xffff).u16(56, 0xef53).u16(58, 1).u16(60, 2).u32(76, 1);
        bytes.u32(84, FIRST).u16(88, INODE).u16(90, group);
        // has_journal, ext_attr, dir_index; filetype, extents; sparse_super, large_file, huge_file, dir_nlink, extra_isize.
        bytes.u32(92, 0x4 | 0x8 | 0x20).u32(96, 0x2 | 0x40).u32(100, 0x1 | 0x2 | 0x8 | 0x20 | 0x40);
        bytes.put(104, &identity).u32(224, JOURNAL).put(236, &identity);
        // Directories are hashed by half MD4, of signed characters.
        bytes.put(252, &[1]).u32(352, 1);
        // user_xattr and acl; so much more than the old 128 bytes has each inode.
        bytes.u32(256, 0xc).u16(348, 32).u16(350, 32);
        bytes.0
    }
}

/// With `sparse_super`: the first two, and powers of 3, 5 and 7.
fn has_superblock(group: u64) -> bool {
    let is_power = |base: u64| {
        let mut rest = group;
        while rest > 1 && rest.is_multiple_of(base) {
            rest /= base;
        }
        rest == 1
    };
    group <= 1 || [3, 5, 7].into_iter().any(is_power)
}

/// The first bits are set, and those beyond the end.
fn bitmap(used: u64, end: u64) -> Vec<u8> {
    let byte = |byte: u64| {
        (0..8).filter(|bit| byte * 8 + bit < used || byte * 8 + bit >= end).fold(0, |bits, bit| bits | 1_u8 << bit)
    };
    (0..BLOCK).map(byte).collect()
}

/// With one extent.
fn inode(mode: u64, links: u64, block: u64, blocks: u64) -> Vec<u8> {
    let mut bytes = Bytes::new(INODE);
    let length = blocks * BLOCK;
    bytes.u16(0, mode).u32(4, length & 0xffff_ffff).u32(108, length >> 32).u16(26, links);
    // In sectors; its blocks are in extents.
    bytes.u32(28, length / 512).u32(32, 0x0008_0000);
    // The extent's header: its magic number, one of four, of no depth.
    bytes.u16(40, 0xf30a).u16(42, 1).u16(44, 4);
    bytes.u32(52, 0).u16(56, blocks).u16(58, 0).u32(60, block).u16(128, 32);
    bytes.0
}

/// A directory's block.
fn entries(entries: &[(u64, &str)]) -> Vec<u8> {
    let (mut bytes, mut at) = (Bytes::new(BLOCK), 0);
    for (number, (inode, name)) in entries.iter().enumerate() {
        let length = (8 + name.len() as u64).next_multiple_of(4);
        let length = if number + 1 == entries.len() { BLOCK - at } else { length };
        // All are directories.
        let types = [u8::try_from(name.len()).unwrap_or(u8::MAX), 2];
        bytes.u32(at, *inode).u16(at + 4, length).put(at + 6, &types).put(at + 8, name.as_bytes());
        at += length;
    }
    bytes.0
}

/// The journal's own superblock, whose numbers have their high bytes first: nothing is to be replayed.
fn journal(blocks: u64, identity: [u8; 16]) -> Vec<u8> {
    let mut bytes = Bytes::new(1024);
    for (at, value) in [(0, 0xc03b_3998), (4, 4), (12, BLOCK), (16, blocks), (20, 1), (24, 1), (64, 1)] {
        let value: [u8; 8] = u64::to_be_bytes(value);
        bytes.put(at, value.get(4..).unwrap_or_default());
    }
    bytes.put(48, &identity);
    bytes.0
}

/// Bytes with numbers in them, the low byte first.
struct Bytes(Vec<u8>);

impl Bytes {
    fn new(length: u64) -> Self {
        Bytes((0..length).map(|_| 0).collect())
    }

    fn put(&mut self, at: u64, value: &[u8]) -> &mut Self {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        for (byte, value) in self.0.iter_mut().skip(at).zip(value) {
            *byte = *value;
        }
        self
    }

    fn u16(&mut self, at: u64, value: u64) -> &mut Self {
        self.put(at, value.to_le_bytes().get(..2).unwrap_or_default())
    }

    fn u32(&mut self, at: u64, value: u64) -> &mut Self {
        self.put(at, value.to_le_bytes().get(..4).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_in_it_is_found_where_the_kernel_looks() {
        let layout = Layout::new(Size { blocks: 256, inodes: 100 }).unwrap();
        let pieces = layout.pieces([7; 16]);
        let (_, superblock) = pieces.iter().find(|(at, _)| *at == 1024).unwrap();
        let number = |at: usize| u32::from_le_bytes(superblock.get(at..at + 4).unwrap().try_into().unwrap());
        assert_eq!((number(0), u64::from(number(4))), (112, layout.blocks));
        assert_eq!(superblock.get(56..58), Some(&[0x53, 0xef][..]));
        assert_eq!(superblock.len(), 1024);
        assert!(layout.length() < 6 << 20, "{}", layout.length());
        assert_eq!((0..30).filter(|group| has_superblock(*group)).collect::<Vec<_>>(), [0, 1, 3, 5, 7, 9, 25, 27]);
    }

    #[test]
    fn what_is_too_large_is_none() {
        assert!(Layout::new(Size { blocks: u64::MAX, inodes: 1 }).is_none());
        assert!(Layout::new(Size { blocks: 1 << 32, inodes: 1 }).is_none());
        assert!(Layout::new(Size { blocks: 1 << 30, inodes: 1 << 20 }).is_some());
    }

    proptest! {
        #[test]
        fn there_is_room_for_what_was_asked_for(blocks in 0..20_000_000_u64, inodes in 1..2_000_000_u64) {
            let layout = Layout::new(Size { blocks, inodes }).unwrap();
            let free: u64 = (0..layout.groups()).map(|group| layout.free(group)).sum();
            let kept_back = (layout.blocks / 50).min(4096);
            prop_assert!(free >= blocks + kept_back, "{free} of {blocks}: {layout:?}");
            // And not for much more than that: a group's table at most.
            prop_assert!(free <= blocks + kept_back + 5000, "{free} of {blocks}: {layout:?}");
            let enough = (layout.inodes_per_group * layout.groups()) >= inodes + FIRST;
            prop_assert!(enough || layout.inodes_per_group == PER_GROUP);
            for group in 0..layout.groups() {
                let range = layout.range(group);
                prop_assert!(layout.used(group) <= range.end - range.start, "{group}: {layout:?}");
            }
        }
    }
}
