//! The messages of `nf_tables` that this crate sends, and those that it reads. What they say is decided in [`crate::firewall`].

use super::decode::{Malformed, attributes, string, take_u32};
use super::encode::{Attribute, Batch, Kind, Message, flag};
use super::route::define_attributes;
use super::socket::Answers;
use crate::firewall::{Chain, Data, Element, Expression, Rule, Set, Stored, TABLE, Verdict};
use crate::{Error, Operation};

define_attributes! {
    NFTA_TABLE_NAME = 1 NFTA_TABLE_USERDATA = 6
    NFTA_CHAIN_TABLE = 1 NFTA_CHAIN_NAME = 3 NFTA_CHAIN_HOOK = 4 NFTA_CHAIN_POLICY = 5 NFTA_CHAIN_TYPE = 7
    NFTA_HOOK_HOOKNUM = 1 NFTA_HOOK_PRIORITY = 2
    NFTA_RULE_TABLE = 1 NFTA_RULE_CHAIN = 2 NFTA_RULE_EXPRESSIONS = 4 NFTA_RULE_USERDATA = 7
    NFTA_SET_TABLE = 1 NFTA_SET_NAME = 2 NFTA_SET_FLAGS = 3 NFTA_SET_KEY_TYPE = 4 NFTA_SET_KEY_LEN = 5
    NFTA_SET_DATA_TYPE = 6 NFTA_SET_DATA_LEN = 7 NFTA_SET_DESC = 9 NFTA_SET_ID = 10 NFTA_SET_USERDATA = 13
    NFTA_SET_DESC_CONCAT = 2 NFTA_SET_FIELD_LEN = 1
    NFTA_SET_ELEM_LIST_TABLE = 1 NFTA_SET_ELEM_LIST_SET = 2 NFTA_SET_ELEM_LIST_ELEMENTS = 3
    NFTA_SET_ELEM_KEY = 1 NFTA_SET_ELEM_DATA = 2 NFTA_SET_ELEM_USERDATA = 6 NFTA_SET_ELEM_KEY_END = 10
    NFTA_LIST_ELEM = 1 NFTA_EXPR_NAME = 1 NFTA_EXPR_DATA = 2 NFTA_DATA_VALUE = 1 NFTA_DATA_VERDICT = 2
    NFTA_VERDICT_CODE = 1 NFTA_VERDICT_CHAIN = 2
    NFTA_GEN_ID = 1 NFNL_BATCH_GENID = 1
}

/// `struct nfgenmsg`: the family, a version, and for marks the subsystem.
const INET: [u8; 4] = [1, 0, 0, 0];
const ANY_FAMILY: [u8; 4] = [0; 4];
const MARK: [u8; 4] = [0, 0, 0, 10];

const fn kind(message: u16, name: &'static str, flags: u16) -> Kind {
    Kind { number: 10 << 8 | message, name, flags, reply: 0 }
}

const fn ask(message: u16, name: &'static str, flags: u16, reply: u16) -> Kind {
    Kind { number: 10 << 8 | message, name, flags, reply: 10 << 8 | reply }
}

const BEGIN: Kind = Kind { number: 16, name: "NFNL_MSG_BATCH_BEGIN", flags: 0, reply: 0 };
const END: Kind = Kind { number: 17, name: "NFNL_MSG_BATCH_END", flags: 0, reply: 0 };
const NEW_TABLE: Kind = kind(0, "NFT_MSG_NEWTABLE", flag::CREATE);
const GET_TABLE: Kind = ask(1, "NFT_MSG_GETTABLE", 0, 0);
const DELETE_TABLE: Kind = kind(2, "NFT_MSG_DELTABLE", 0);
const NEW_CHAIN: Kind = kind(3, "NFT_MSG_NEWCHAIN", flag::CREATE);
const LIST_CHAINS: Kind = ask(4, "NFT_MSG_GETCHAIN", flag::DUMP, 3);
const NEW_RULE: Kind = kind(6, "NFT_MSG_NEWRULE", flag::CREATE | flag::APPEND);
const LIST_RULES: Kind = ask(7, "NFT_MSG_GETRULE", flag::DUMP, 6);
const DELETE_RULES: Kind = kind(8, "NFT_MSG_DELRULE", 0);
const NEW_SET: Kind = kind(9, "NFT_MSG_NEWSET", flag::CREATE);
const NEW_ELEMENTS: Kind = kind(12, "NFT_MSG_NEWSETELEM", flag::CREATE | flag::EXCL);
const GET_ELEMENT: Kind = ask(13, "NFT_MSG_GETSETELEM", 0, 12);
const LIST_ELEMENTS: Kind = ask(13, "NFT_MSG_GETSETELEM", flag::DUMP, 12);
const DELETE_ELEMENTS: Kind = kind(14, "NFT_MSG_DELSETELEM", 0);
const GET_GENERATION: Kind = ask(16, "NFT_MSG_GETGEN", 0, 15);

/// Of elements in one message: an attribute's length is a number of 16 bits.
const BYTES_PER_MESSAGE: usize = 48 << 10;

/// For `nft(8)`, which could not show the names of links otherwise: the type of such a key, and that its bytes are as they are.
const IFNAME: u32 = 41;
const KEY_BYTE_ORDER: u8 = 0;
const HOST_ORDER: u8 = 1;

/// Before a comment in user data: what it is, in the numbers of each kind of thing that has one.
const COMMENT: u8 = 0;

/// A chain that somebody has hooked into the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HookedChain {
    pub(crate) family: u8,
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) hook: Option<u32>,
    pub(crate) drops: bool,
}

/// A rule as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundRule {
    pub(crate) family: u8,
    pub(crate) table: String,
    pub(crate) chain: String,
    pub(crate) comment: Option<String>,
    /// Whether it stops every packet that comes to it.
    pub(crate) stops_all: bool,
}

impl Batch {
    /// A batch of which everything happens or nothing; if a generation is given, only if nobody changed any rule since then.
    pub(crate) fn transaction(
        operation: Operation,
        generation: Option<u32>,
        fill: impl FnOnce(&mut Transaction<'_>),
    ) -> Self {
        let mut batch = Batch::new();
        batch.mark(BEGIN, (operation, TABLE), &MARK, |m| {
            if let Some(generation) = generation {
                m.be32(NFNL_BATCH_GENID, generation);
            }
        });
        fill(&mut Transaction { batch: &mut batch, operation });
        batch.mark(END, (operation, TABLE), &MARK, |_| {});
        batch
    }

    pub(crate) fn find_table(&mut self, operation: Operation) {
        let kind = Kind { reply: 10 << 8, ..GET_TABLE };
        self.message(kind, (operation, TABLE), &INET, |m| m.string(NFTA_TABLE_NAME, TABLE));
    }

    pub(crate) fn find_element(&mut self, operation: Operation, element: &Element) {
        self.message(GET_ELEMENT, (operation, &element.to_string()), &INET, |m| {
            list(m, element.set, |m| m.nested(NFTA_LIST_ELEM, |m| key(m, element)));
        });
    }

    pub(crate) fn list_elements(&mut self, operation: Operation, set: Set) {
        self.message(LIST_ELEMENTS, (operation, set.name()), &INET, |m| {
            m.string(NFTA_SET_ELEM_LIST_TABLE, TABLE);
            m.string(NFTA_SET_ELEM_LIST_SET, set.name());
        });
    }

    /// All rules there are, of everybody.
    pub(crate) fn list_rules(&mut self, operation: Operation) {
        self.message(LIST_RULES, (operation, "all rules"), &ANY_FAMILY, |_| {});
    }

    pub(crate) fn list_chains(&mut self, operation: Operation) {
        self.message(LIST_CHAINS, (operation, "all chains"), &ANY_FAMILY, |_| {});
    }

    pub(crate) fn find_generation(&mut self, operation: Operation) {
        self.message(GET_GENERATION, (operation, "the rules' generation"), &ANY_FAMILY, |_| {});
    }
}

/// What is to happen together.
#[derive(Debug)]
pub(crate) struct Transaction<'a> {
    batch: &'a mut Batch,
    operation: Operation,
}

impl Transaction<'_> {
    pub(crate) fn table(&mut self, comment: &str) {
        self.batch.message(NEW_TABLE, (self.operation, TABLE), &INET, |m| {
            m.string(NFTA_TABLE_NAME, TABLE);
            m.bytes(NFTA_TABLE_USERDATA, &user_data(comment));
        });
    }

    pub(crate) fn delete_table(&mut self) {
        self.batch.message(DELETE_TABLE, (self.operation, TABLE), &INET, |m| m.string(NFTA_TABLE_NAME, TABLE));
    }

    /// Makes the chain if it is not there, and takes all rules out of it.
    pub(crate) fn empty_chain(&mut self, chain: &Chain) {
        let about = (self.operation, chain.name);
        self.batch.message(NEW_CHAIN, about, &INET, |m| {
            m.string(NFTA_CHAIN_TABLE, TABLE);
            m.string(NFTA_CHAIN_NAME, chain.name);
            if let Some(hook) = &chain.hook {
                m.nested(NFTA_CHAIN_HOOK, |m| {
                    m.be32(NFTA_HOOK_HOOKNUM, hook.number);
                    m.be32(NFTA_HOOK_PRIORITY, hook.priority.cast_unsigned());
                });
                m.be32(NFTA_CHAIN_POLICY, Verdict::Accept.code());
                m.string(NFTA_CHAIN_TYPE, hook.kind);
            }
        });
        self.batch.message(DELETE_RULES, about, &INET, |m| {
            m.string(NFTA_RULE_TABLE, TABLE);
            m.string(NFTA_RULE_CHAIN, chain.name);
        });
    }

    pub(crate) fn rule(&mut self, rule: &Rule) {
        self.batch.message(NEW_RULE, (self.operation, rule.comment), &INET, |m| {
            m.string(NFTA_RULE_TABLE, TABLE);
            m.string(NFTA_RULE_CHAIN, rule.chain);
            m.nested(NFTA_RULE_EXPRESSIONS, |m| {
                for wanted in rule.expressions {
                    m.nested(NFTA_LIST_ELEM, |m| expression(m, wanted));
                }
            });
            m.bytes(NFTA_RULE_USERDATA, &user_data(rule.comment));
        });
    }

    /// Makes the set if it is not there. The number is for the kernel to tell the sets of a transaction apart.
    pub(crate) fn set(&mut self, set: Set, number: u32) {
        let (key, data) = (set.key(), set.data());
        self.batch.message(NEW_SET, (self.operation, set.name()), &INET, |m| {
            m.string(NFTA_SET_TABLE, TABLE);
            m.string(NFTA_SET_NAME, set.name());
            let ranges = if set.ranges().is_some() { NFT_SET_INTERVAL | NFT_SET_CONCAT } else { 0 };
            m.be32(NFTA_SET_FLAGS, ranges | if data.is_some() { NFT_SET_MAP } else { 0 });
            m.be32(NFTA_SET_KEY_TYPE, key.kind);
            m.be32(NFTA_SET_KEY_LEN, key.length);
            if let Some(data) = data {
                m.be32(NFTA_SET_DATA_TYPE, data.kind);
                m.be32(NFTA_SET_DATA_LEN, data.length);
            }
            m.be32(NFTA_SET_ID, number);
            if key.kind == IFNAME {
                m.bytes(NFTA_SET_USERDATA, &[KEY_BYTE_ORDER, 4, HOST_ORDER, 0, 0, 0]);
            }
            if let Some(parts) = set.ranges() {
                m.nested(NFTA_SET_DESC, |m| {
                    m.nested(NFTA_SET_DESC_CONCAT, |m| {
                        for length in parts {
                            m.nested(NFTA_LIST_ELEM, |m| m.be32(NFTA_SET_FIELD_LEN, length));
                        }
                    });
                });
            }
        });
    }

    /// Adds elements, which must not be there.
    pub(crate) fn add(&mut self, elements: &[Element]) {
        self.elements(NEW_ELEMENTS, elements, |m, element| {
            key(m, element);
            if let Some(value) = &element.data {
                m.nested(NFTA_SET_ELEM_DATA, |m| m.bytes(NFTA_DATA_VALUE, value));
            }
            m.bytes(NFTA_SET_ELEM_USERDATA, &user_data(&element.tag));
        });
    }

    /// Removes elements, which must be there.
    pub(crate) fn remove(&mut self, elements: &[Element]) {
        self.elements(DELETE_ELEMENTS, elements, key);
    }

    fn elements(&mut self, kind: Kind, elements: &[Element], write: impl Fn(&mut Message<'_>, &Element)) {
        for of_one_set in elements.chunk_by(|a, b| a.set == b.set) {
            for chunk in by_bytes(of_one_set, BYTES_PER_MESSAGE) {
                let Some(first) = chunk.first() else { continue };
                self.batch.message(kind, (self.operation, &first.to_string()), &INET, |m| {
                    list(m, first.set, |m| {
                        for element in chunk {
                            m.part(element.to_string());
                            m.nested(NFTA_LIST_ELEM, |m| write(m, element));
                        }
                    });
                });
            }
        }
    }
}

/// The elements in pieces that are not longer than this in a message.
pub(crate) fn by_bytes(mut rest: &[Element], most: usize) -> impl Iterator<Item = &[Element]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |element: &&Element| {
            bytes += element.most_bytes();
            bytes <= most
        };
        // One alone always fits.
        let count = rest.iter().take_while(fits).count().max(1);
        let (piece, after) = rest.split_at_checked(count)?;
        rest = after;
        Some(piece)
    })
}

const NFT_SET_INTERVAL: u32 = 4;
const NFT_SET_MAP: u32 = 8;
const NFT_SET_CONCAT: u32 = 0x80;

fn list(m: &mut Message<'_>, set: Set, fill: impl FnOnce(&mut Message<'_>)) {
    m.string(NFTA_SET_ELEM_LIST_TABLE, TABLE);
    m.string(NFTA_SET_ELEM_LIST_SET, set.name());
    m.nested(NFTA_SET_ELEM_LIST_ELEMENTS, fill);
}

fn key(m: &mut Message<'_>, element: &Element) {
    m.nested(NFTA_SET_ELEM_KEY, |m| m.bytes(NFTA_DATA_VALUE, &element.key));
    if let Some(end) = &element.end {
        m.nested(NFTA_SET_ELEM_KEY_END, |m| m.bytes(NFTA_DATA_VALUE, end));
    }
}

/// One expression of a rule. Its attributes are called by number here: each kind has its own, and an error about one is a mistake of ours.
fn expression(m: &mut Message<'_>, wanted: &Expression) {
    let number = |number| Attribute { number, name: "NFTA_EXPR_DATA" };
    m.string(NFTA_EXPR_NAME, wanted.name());
    m.nested(NFTA_EXPR_DATA, |m| {
        for (attribute, data) in wanted.attributes() {
            match data {
                Data::Number(value) => m.be32(number(attribute), value),
                Data::Value(value) => m.nested(number(attribute), |m| m.bytes(NFTA_DATA_VALUE, value)),
                Data::Name(name) => m.string(number(attribute), name),
                Data::Verdict(verdict) => m.nested(number(attribute), |m| {
                    m.nested(NFTA_DATA_VERDICT, |m| {
                        m.be32(NFTA_VERDICT_CODE, verdict.code());
                        if let Verdict::Jump(chain) = verdict {
                            m.string(NFTA_VERDICT_CHAIN, chain);
                        }
                    });
                }),
            }
        }
    });
}

/// A comment as `nft(8)` keeps and shows it: a type, a length, and the text with a NUL. Tags are short enough, see [`crate::name`].
fn user_data(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    [COMMENT, length].into_iter().chain(comment.bytes()).chain([0]).collect()
}

fn comment(user_data: &[u8]) -> Option<String> {
    let (head, text) = user_data.split_first_chunk::<2>()?;
    let [COMMENT, length] = *head else { return None };
    text.get(..usize::from(length)).map(string)
}

impl Answers {
    /// The comment of the table that the only message asked for, empty if it has none: `None` if there is no table.
    pub(crate) fn table(self) -> Result<Option<String>, Error> {
        self.one(&[libc::ENOENT], |payload| {
            let user_data = value(payload.get(4..).ok_or(Malformed)?, NFTA_TABLE_USERDATA)?;
            Ok(user_data.and_then(comment).unwrap_or_default())
        })
    }

    /// The elements of this set that the messages asked for, one each; `None` for one that is not there, or whose set is not.
    pub(crate) fn elements(self) -> Result<Vec<Option<Stored>>, Error> {
        let all = self.each(&[libc::ENOENT], stored)?;
        Ok(all.into_iter().map(|found| found.and_then(|all| all.into_iter().next())).collect())
    }

    /// The elements of a set; none if there is no such set.
    pub(crate) fn element_list(self) -> Result<Vec<Stored>, Error> {
        match self.list(stored) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
            list => Ok(list?.into_iter().flatten().collect()),
        }
    }

    pub(crate) fn rules(self) -> Result<Vec<FoundRule>, Error> {
        self.list(found_rule)
    }

    pub(crate) fn chains(self) -> Result<Vec<HookedChain>, Error> {
        self.list(found_chain)
    }

    /// The number of the last change to any rule.
    pub(crate) fn generation(self) -> Result<Option<u32>, Error> {
        self.one(&[], |payload| Ok(value(payload.get(4..).ok_or(Malformed)?, NFTA_GEN_ID)?.and_then(be32)))
            .map(Option::flatten)
    }
}

/// The value of an attribute.
fn value(bytes: &[u8], wanted: Attribute) -> Result<Option<&[u8]>, Malformed> {
    for attribute in attributes(bytes) {
        let (number, value) = attribute?;
        if number == wanted.number {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn be32(bytes: &[u8]) -> Option<u32> {
    take_u32(bytes).map(|(number, _)| u32::from_be(number))
}

fn text(bytes: &[u8], wanted: Attribute) -> Result<String, Malformed> {
    Ok(value(bytes, wanted)?.map(string).unwrap_or_default())
}

/// The elements in one message.
fn stored(payload: &[u8]) -> Result<Vec<Stored>, Malformed> {
    let Some(list) = value(payload.get(4..).ok_or(Malformed)?, NFTA_SET_ELEM_LIST_ELEMENTS)? else {
        return Ok(Vec::new());
    };
    let one = |element: &[u8]| {
        let data = |wanted| match value(element, wanted)? {
            Some(nest) => Ok(value(nest, NFTA_DATA_VALUE)?.map(<[u8]>::to_vec)),
            None => Ok(None),
        };
        let tag = value(element, NFTA_SET_ELEM_USERDATA)?.and_then(comment);
        let (key, end) = (data(NFTA_SET_ELEM_KEY)?.ok_or(Malformed)?, data(NFTA_SET_ELEM_KEY_END)?);
        Ok(Stored { key, end, data: data(NFTA_SET_ELEM_DATA)?, tag })
    };
    attributes(list).map(|element| one(element?.1)).collect()
}

fn found_chain(payload: &[u8]) -> Result<HookedChain, Malformed> {
    let (head, rest) = payload.split_first_chunk::<4>().ok_or(Malformed)?;
    let hook = match value(rest, NFTA_CHAIN_HOOK)? {
        Some(nest) => value(nest, NFTA_HOOK_HOOKNUM)?.and_then(be32),
        None => None,
    };
    let drops = value(rest, NFTA_CHAIN_POLICY)?.and_then(be32) == Some(Verdict::Drop.code());
    let (table, name) = (text(rest, NFTA_CHAIN_TABLE)?, text(rest, NFTA_CHAIN_NAME)?);
    Ok(HookedChain { family: head[0], table, name, hook, drops })
}

fn found_rule(payload: &[u8]) -> Result<FoundRule, Malformed> {
    let (head, rest) = payload.split_first_chunk::<4>().ok_or(Malformed)?;
    let comment = value(rest, NFTA_RULE_USERDATA)?.and_then(comment);
    let mut stops_all = false;
    for expression in attributes(value(rest, NFTA_RULE_EXPRESSIONS)?.unwrap_or_default()) {
        let (_, expression) = expression?;
        match &*text(expression, NFTA_EXPR_NAME)? {
            "counter" | "log" => {}
            "reject" => stops_all = true,
            "immediate" => stops_all = is_drop(value(expression, NFTA_EXPR_DATA)?.unwrap_or_default())?,
            // It has a condition.
            _ => {
                stops_all = false;
                break;
            }
        }
    }
    let (table, chain) = (text(rest, NFTA_RULE_TABLE)?, text(rest, NFTA_RULE_CHAIN)?);
    Ok(FoundRule { family: head[0], table, chain, comment, stops_all })
}

fn is_drop(immediate: &[u8]) -> Result<bool, Malformed> {
    let data = value(immediate, Attribute { number: 2, name: "NFTA_IMMEDIATE_DATA" })?.unwrap_or_default();
    let verdict = value(data, NFTA_DATA_VERDICT)?.unwrap_or_default();
    Ok(value(verdict, NFTA_VERDICT_CODE)?.and_then(be32) == Some(Verdict::Drop.code()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_comment_and_back() {
        for text in ["", "cd-web 02cd00000000 br0 me", &"x".repeat(250)] {
            assert_eq!(comment(&user_data(text)).as_deref(), Some(text));
        }
        for bytes in [&[][..], &[0], &[1, 1, 0], &[0, 9, b'x']] {
            assert_eq!(comment(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn elements_are_read_as_they_are_written() {
        let element = |n: u16| Element {
            set: Set::Ports4,
            key: n.to_be_bytes().repeat(4),
            end: None,
            data: Some(vec![1; 8]),
            tag: format!("tag {n} {}", "o".repeat(200)),
        };
        // Not more than an attribute's length can say.
        let all: Vec<_> = (0..205).map(element).collect();
        let mut batch = Batch::transaction(Operation::Publish, None, |t| t.add(&all));
        let bytes = batch.number(7).to_vec();
        let messages: Vec<_> = super::super::decode::messages(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(messages.len(), 4, "begin, two with elements, end");
        let first = stored(messages[1].payload).unwrap().len();
        assert!(messages[1].payload.len() < BYTES_PER_MESSAGE && first > 120, "{first}");
        let read: Vec<_> = messages[1..3].iter().flat_map(|m| stored(m.payload).unwrap()).collect();
        assert_eq!(read.len(), 205);
        assert!(
            read.iter().zip(&all).all(|(read, wrote)| (&read.key, read.tag.as_ref()) == (&wrote.key, Some(&wrote.tag)))
        );
        // The kernel says which one it objects to by where it begins.
        let sent = &batch.sent()[2];
        assert_eq!(sent.object_at(None), all[first].to_string());
        let last = u32::try_from(messages[2].payload.len() + 16 - 4).unwrap();
        assert_eq!(sent.object_at(Some(last)), all[204].to_string());
    }

    proptest! {
        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let _ = stored(&bytes);
            let _ = found_rule(&bytes);
            let _ = found_chain(&bytes);
            let _ = comment(&bytes);
        }
    }
}
