//! The names of conversations, by which a store finds their numbers. Equal to the keys of their
//! records.

/// Writes `{tenant}/{conversation_id}` over the buffer's content.
pub(crate) fn write_conversation_name(name: &mut Vec<u8>, tenant: &str, conversation_id: &str) {
    name.clear();
    name.extend_from_slice(tenant.as_bytes());
    name.push(b'/');
    name.extend_from_slice(conversation_id.as_bytes());
}
