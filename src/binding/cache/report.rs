//! What a cache tells about itself, as JSON.

use serde_json::{Map, Value, json};

use crate::cache::{DiskStats, Event, ModalityStats, Optimized, SharedState, SharedStats, Stats};
use crate::embedding::Modality;

/// See `Stats`.
pub fn stats(stats: &Stats) -> String {
    json!({
        "totalRequests": stats.requests,
        "hits": stats.hits(),
        "misses": stats.misses(),
        "hitRatio": stats.hit_ratio(),
        "missRatio": if stats.requests > 0 { 1.0 - stats.hit_ratio() } else { 0.0 },
        "currentEntries": stats.entries,
        "currentSizeBytes": stats.bytes,
        "maxEntries": stats.max_entries,
        "maxSizeBytes": stats.max_bytes,
        "utilization": stats.utilization(),
        "avgAccessTimeMs": stats.average_access_ns() / 1e6,
        "averageAccessTime": stats.average_access_ns() / 1e6,
        "sets": stats.sets,
        "rejected": stats.rejected,
        "evictions": stats.evictions(),
        "evictionCauses": eviction_causes(stats),
        "missCauses": {
            "absent": stats.missed_absent,
            "expired": stats.missed_expired,
            "changed": stats.missed_changed,
            "damaged": stats.missed_damaged,
        },
        "memoryHits": stats.memory_hits,
        "diskHits": stats.disk_hits,
        "payloadBytes": stats.payload_bytes,
        "sharedHits": stats.shared_hits,
        "modalities": modalities(stats),
        "disk": stats.disk.as_ref().map(disk),
        "shared": stats.shared.as_ref().map(shared),
    })
    .to_string()
}

/// See `ModalityStats`.
fn modalities(stats: &Stats) -> Map<String, Value> {
    let of = |(modality, stats): (Modality, &ModalityStats)| {
        let stats = json!({
            "totalRequests": stats.hits + stats.misses,
            "hits": stats.hits,
            "misses": stats.misses,
            "hitRatio": stats.hit_ratio(),
            "sets": stats.sets,
            "currentEntries": stats.entries,
            "currentSizeBytes": stats.bytes,
        });
        (modality.as_str().to_owned(), stats)
    };
    Modality::ALL.into_iter().zip(&stats.modalities).map(of).collect()
}

/// Why entries left memory, and how many.
pub fn eviction_causes(stats: &Stats) -> Value {
    json!({
        "expired": stats.evicted_expired,
        "explicit": stats.evicted_explicit,
        "replaced": stats.evicted_replaced,
        "size": stats.evicted_size,
    })
}

/// See `DiskStats`.
pub fn disk(disk: &DiskStats) -> Value {
    json!({
        "available": disk.available,
        "entries": disk.entries,
        "sizeBytes": disk.bytes,
        "queued": disk.queued,
        "written": disk.written,
        "lost": disk.lost,
        "evicted": disk.evicted,
        "damaged": disk.damaged,
        "errors": disk.errors,
    })
}

/// See `SharedStats`.
pub fn shared(shared: &SharedStats) -> Value {
    let [p50, p95, p99] = shared.latency_ms;
    json!({
        "state": match shared.state {
            SharedState::Connecting => "connecting",
            SharedState::Ready => "ready",
            SharedState::Open => "open",
        },
        "hits": shared.hits,
        "misses": shared.misses,
        "skipped": shared.skipped,
        "damaged": shared.damaged,
        "errors": shared.errors,
        "timeouts": shared.timeouts,
        "queued": shared.queued,
        "writes": shared.written,
        "dropped": shared.dropped,
        "latencyMs": { "p50": p50, "p95": p95, "p99": p99 },
    })
}

/// See `Optimized`. As JSON.
pub fn optimized(did: &Optimized) -> String {
    json!({
        "expiredInMemory": did.expired_in_memory,
        "expiredOnDisk": did.expired_on_disk,
        "evictedOnDisk": did.evicted_on_disk,
        "freedBytes": did.freed_bytes,
        "complete": did.complete,
    })
    .to_string()
}

/// Events of the file and of the server. Those of entries are in the statistics.
pub fn event(event: &Event) -> Option<String> {
    let event = match event {
        Event::RowsDamaged { path, rows } => {
            json!({ "type": "rows-damaged", "path": path.to_string_lossy(), "rows": rows })
        }
        Event::StorageFailed { path, reason } => {
            json!({ "type": "storage-failed", "path": path.to_string_lossy(), "reason": reason })
        }
        Event::StorageRestored { path } => json!({ "type": "storage-restored", "path": path.to_string_lossy() }),
        Event::IndexRebuilt { path } => json!({ "type": "index-rebuilt", "path": path.to_string_lossy() }),
        Event::StorageRefused { path, reason } => {
            json!({ "type": "storage-refused", "path": path.to_string_lossy(), "reason": reason })
        }
        Event::FileSetAside { path, moved_to, reason } => json!({
            "type": "file-set-aside",
            "path": path.to_string_lossy(),
            "movedTo": moved_to.to_string_lossy(),
            "reason": reason,
        }),
        Event::SharedFailed { server, reason } => {
            json!({ "type": "shared-failed", "server": server, "reason": reason })
        }
        Event::SharedRestored { server } => json!({ "type": "shared-restored", "server": server }),
        Event::SharedDamaged { server, values } => {
            json!({ "type": "shared-damaged", "server": server, "values": values })
        }
        Event::Rejected { entries, reason } => json!({ "type": "rejected", "entries": entries, "reason": reason }),
        Event::Evicted { .. } => return None,
    };
    Some(event.to_string())
}
