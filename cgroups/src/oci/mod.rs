//! `linux.resources` of the [OCI runtime specification](https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md),
//! and what its settings are as [`Limits`]. Feature `oci`.
//!
//! ```
//! use cofferdam_cgroups::oci::Resources;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let resources: Resources = serde_json::from_str(
//!     r#"{ "memory": { "limit": 67108864, "swap": 67108864 }, "cpu": { "shares": 512, "quota": 20000, "period": 100000 } }"#,
//! )?;
//! let converted = resources.to_limits()?;
//! assert_eq!(converted.limits.memory.swap, Some(0.into())); // theirs is memory and swap together
//! assert!(converted.ignored.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! What stands in the way, and how it is taken:
//!
//! | setting | taken as |
//! |---|---|
//! | 0 of `memory.limit`, `swap` and `reservation`, `cpu.shares`, quotas, periods and weights | not set, as other runtimes do; a limit of 0 cannot be said, and [`Limits::to_oci`](crate::Limits::to_oci) refuses it |
//! | `pids.limit` 0 | no fork at all, since version 1.3 of the specification; -1 is no limit |
//! | `memory.swap` | memory and swap together; it needs `memory.limit` |
//! | a rate of 0 | no limit, as in v1's files; here too a limit of 0 is refused by the way back |
//! | `unified` | [`Limits::files`](crate::Limits::files): plain names of a controller's files only; they win over other settings |
//! | numbers of devices in `devices` | at most 12 bits of major and 20 of minor: v1's kernel has a greater one for all of them |
//! | `memory.kernel`, `kernelTCP`, `useHierarchy`, `checkBeforeUpdate`, `leafWeight` | told in [`Converted::ignored`]: today's kernels do not have them |

mod devices;
mod from_limits;
mod to_limits;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;
use crate::limits::Limits;

/// What a conversion has made of a document of the specification's.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Converted {
    /// The limits.
    pub limits: Limits,
    /// What is asked for, and has no effect: [`Error::path`] is the setting.
    pub ignored: Vec<Error>,
}

macro_rules! documents {
    ($($(#[$about:meta])* $name:ident { $($(#[$of:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$of])* pub $field: $type,)*
            /// Other fields, as they are.
            #[serde(flatten)]
            pub other: BTreeMap<String, Value>,
        }
    )*};
}

documents! {
    /// `linux.resources`.
    Resources {
        /// Rules of devices; a later one takes precedence.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        devices: Vec<DeviceCgroup>,
        /// Memory.
        #[serde(skip_serializing_if = "Option::is_none")]
        memory: Option<Memory>,
        /// CPU time, and CPUs.
        #[serde(skip_serializing_if = "Option::is_none")]
        cpu: Option<Cpu>,
        /// Processes and threads.
        #[serde(skip_serializing_if = "Option::is_none")]
        pids: Option<Pids>,
        /// Block devices.
        #[serde(rename = "blockIO", skip_serializing_if = "Option::is_none")]
        block_io: Option<BlockIo>,
        /// Huge pages.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        hugepage_limits: Vec<HugepageLimit>,
        /// Network packets.
        #[serde(skip_serializing_if = "Option::is_none")]
        network: Option<Network>,
        /// RDMA, by device.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        rdma: BTreeMap<String, Rdma>,
        /// Files of v2 and what to write there.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        unified: BTreeMap<String, String>,
    }

    /// One rule of devices.
    DeviceCgroup {
        /// Whether they may be used.
        allow: bool,
        /// `b`, `c`, or `a` for all.
        #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
        kind: Option<String>,
        /// The driver; all, if it is not set or -1.
        #[serde(skip_serializing_if = "Option::is_none")]
        major: Option<i64>,
        /// Which of its devices; all, if it is not set or -1.
        #[serde(skip_serializing_if = "Option::is_none")]
        minor: Option<i64>,
        /// Of `r`, `w` and `m`; all three, if it is not set.
        #[serde(skip_serializing_if = "Option::is_none")]
        access: Option<String>,
    }

    /// Limits of memory, in bytes; -1 is no limit.
    Memory {
        /// Of memory.
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<i64>,
        /// Up to this it is spared.
        #[serde(skip_serializing_if = "Option::is_none")]
        reservation: Option<i64>,
        /// Of memory and swap together.
        #[serde(skip_serializing_if = "Option::is_none")]
        swap: Option<i64>,
        /// Of the kernel's memory. Gone from kernels.
        #[serde(skip_serializing_if = "Option::is_none")]
        kernel: Option<i64>,
        /// Of network buffers. Gone from kernels.
        #[serde(rename = "kernelTCP", skip_serializing_if = "Option::is_none")]
        kernel_tcp: Option<i64>,
        /// How readily it is swapped out (v1).
        #[serde(skip_serializing_if = "Option::is_none")]
        swappiness: Option<u64>,
        /// Whether nobody is killed for lack of memory (v1).
        #[serde(rename = "disableOOMKiller", skip_serializing_if = "Option::is_none")]
        disable_oom_killer: Option<bool>,
        /// Whether what is below counts (v1). It always does.
        #[serde(skip_serializing_if = "Option::is_none")]
        use_hierarchy: Option<bool>,
        /// Whether a limit below what is in use is refused. v1 always does it, v2 never.
        #[serde(skip_serializing_if = "Option::is_none")]
        check_before_update: Option<bool>,
    }

    /// Limits of CPU time, in microseconds, and CPUs.
    Cpu {
        /// The share of a busy machine, 2 to 262144.
        #[serde(skip_serializing_if = "Option::is_none")]
        shares: Option<u64>,
        /// CPU time in each period; -1 is no limit.
        #[serde(skip_serializing_if = "Option::is_none")]
        quota: Option<i64>,
        /// How much of it may be used later.
        #[serde(skip_serializing_if = "Option::is_none")]
        burst: Option<u64>,
        /// The length of a period.
        #[serde(skip_serializing_if = "Option::is_none")]
        period: Option<u64>,
        /// For real-time processes (v1).
        #[serde(skip_serializing_if = "Option::is_none")]
        realtime_runtime: Option<i64>,
        /// Their period (v1).
        #[serde(skip_serializing_if = "Option::is_none")]
        realtime_period: Option<u64>,
        /// On which CPUs: `0-3,7`.
        #[serde(skip_serializing_if = "Option::is_none")]
        cpus: Option<String>,
        /// With the memory of which nodes.
        #[serde(skip_serializing_if = "Option::is_none")]
        mems: Option<String>,
        /// 1: only when nobody else wants to.
        #[serde(skip_serializing_if = "Option::is_none")]
        idle: Option<i64>,
    }

    /// The number of processes and threads.
    Pids {
        /// The limit; -1 is none.
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<i64>,
    }

    /// Limits of block devices.
    BlockIo {
        /// The share of a busy device, 10 to 1000.
        #[serde(skip_serializing_if = "Option::is_none")]
        weight: Option<u16>,
        /// The same against what is below. Gone from kernels.
        #[serde(skip_serializing_if = "Option::is_none")]
        leaf_weight: Option<u16>,
        /// Shares of single devices.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        weight_device: Vec<WeightDevice>,
        /// Bytes read in a second.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        throttle_read_bps_device: Vec<ThrottleDevice>,
        /// Bytes written in a second.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        throttle_write_bps_device: Vec<ThrottleDevice>,
        /// Read operations in a second.
        #[serde(rename = "throttleReadIOPSDevice", skip_serializing_if = "Vec::is_empty")]
        throttle_read_iops_device: Vec<ThrottleDevice>,
        /// Write operations in a second.
        #[serde(rename = "throttleWriteIOPSDevice", skip_serializing_if = "Vec::is_empty")]
        throttle_write_iops_device: Vec<ThrottleDevice>,
    }

    /// The share of one block device.
    WeightDevice {
        /// The driver.
        major: i64,
        /// Which of its devices.
        minor: i64,
        /// 10 to 1000.
        #[serde(skip_serializing_if = "Option::is_none")]
        weight: Option<u16>,
        /// Gone from kernels.
        #[serde(skip_serializing_if = "Option::is_none")]
        leaf_weight: Option<u16>,
    }

    /// The rate of one block device.
    ThrottleDevice {
        /// The driver.
        major: i64,
        /// Which of its devices.
        minor: i64,
        /// In a second; 0 is no limit.
        rate: u64,
    }

    /// A limit of huge pages.
    HugepageLimit {
        /// Of this size: `2MB`.
        page_size: String,
        /// In bytes.
        limit: u64,
    }

    /// How packets are marked (v1).
    Network {
        /// Their class.
        #[serde(rename = "classID", skip_serializing_if = "Option::is_none")]
        class_id: Option<u32>,
        /// Their priorities, by interface.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        priorities: Vec<InterfacePriority>,
    }

    /// The priority of packets on one interface.
    InterfacePriority {
        /// The interface.
        name: String,
        /// The priority.
        priority: u32,
    }

    /// What may be had of one RDMA device.
    Rdma {
        /// Handles.
        #[serde(skip_serializing_if = "Option::is_none")]
        hca_handles: Option<u32>,
        /// Objects.
        #[serde(skip_serializing_if = "Option::is_none")]
        hca_objects: Option<u32>,
    }
}

#[cfg(test)]
mod tests;
