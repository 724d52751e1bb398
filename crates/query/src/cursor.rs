//! Cursors of member lists: the start of the next page, signed and bound to one list.
//!
//! A cursor opens only its own list (INV-CURSOR). It must not hold data of members. It holds a
//! slot, so any page is found at the same cost.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use receipts_fold::view::MemberFilter;
use sha2::Sha256;
use std::fmt;

/// The first byte of a cursor. The slot follows in four bytes, little-endian, then the first 16
/// bytes of the signature.
const CURSOR_VERSION: u8 = 1;

/// Bytes of the HMAC-SHA256 in a cursor: 128 bits, the least that RFC 2104 (section 5) advises.
const SIGNATURE_BYTES: usize = 16;

/// Names the list of a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListId<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// The conversation.
    pub conversation_id: &'a str,
    /// The message.
    pub message_id: &'a str,
    /// The members of the list.
    pub filter: MemberFilter,
}

/// Signs and opens cursors. All edges of a service share one key, which survives restarts. If the
/// key changes, walks in progress are refused and have to start again.
///
/// ```
/// use receipts_fold::view::MemberFilter;
/// use receipts_query::{CursorKey, ListId};
///
/// let key = CursorKey::new([7; 32]);
/// let filter = MemberFilter::Unread;
/// let list = ListId { tenant: "default", conversation_id: "g1", message_id: "m1", filter };
/// let cursor = key.sign(list, 400);
/// assert_eq!(key.open(list, &cursor), Ok(400));
/// assert!(key.open(ListId { message_id: "m2", ..list }, &cursor).is_err());
/// ```
#[derive(Clone)]
pub struct CursorKey([u8; 32]);

/// The cursor was forged, or made for another list or with another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor does not belong to this list")]
pub struct BadCursor;

impl CursorKey {
    /// Creates a key of 32 random bytes.
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// Returns the bytes of the key.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the cursor of a page that begins at `next_slot`: 28 characters, safe in a query
    /// string.
    pub fn sign(&self, list: ListId<'_>, next_slot: u32) -> String {
        let mut bytes = [0; 1 + 4 + SIGNATURE_BYTES];
        bytes[0] = CURSOR_VERSION;
        bytes[1..5].copy_from_slice(&next_slot.to_le_bytes());
        bytes[5..].copy_from_slice(&self.signature(list, next_slot).finalize().into_bytes()[..SIGNATURE_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Returns the slot at which the page begins.
    ///
    /// # Errors
    /// [`BadCursor`] unless this key signed this cursor for this list.
    pub fn open(&self, list: ListId<'_>, cursor: &str) -> Result<u32, BadCursor> {
        let mut bytes = [0; 1 + 4 + SIGNATURE_BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(cursor, &mut bytes).map_err(|_| BadCursor)?;
        if length != bytes.len() || bytes[0] != CURSOR_VERSION {
            return Err(BadCursor);
        }
        let next_slot = u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
        self.signature(list, next_slot).verify_truncated_left(&bytes[5..]).map_err(|_| BadCursor)?;
        Ok(next_slot)
    }

    /// Signs the slot and the list of a cursor. Each id follows its length, so no two lists give
    /// the same bytes.
    fn signature(&self, list: ListId<'_>, next_slot: u32) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(b"receipts cursor");
        mac.update(&[CURSOR_VERSION]);
        for id in [list.tenant, list.conversation_id, list.message_id] {
            mac.update(&(id.len() as u64).to_le_bytes());
            mac.update(id.as_bytes());
        }
        mac.update(&[match list.filter {
            MemberFilter::Read => 1,
            MemberFilter::Unread => 2,
            MemberFilter::Departed => 3,
        }]);
        mac.update(&next_slot.to_le_bytes());
        mac
    }
}

/// Hides the key.
impl fmt::Debug for CursorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CursorKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: CursorKey = CursorKey::new([42; 32]);

    fn filter() -> impl Strategy<Value = MemberFilter> {
        prop_oneof![Just(MemberFilter::Read), Just(MemberFilter::Unread), Just(MemberFilter::Departed)]
    }

    fn list() -> impl Strategy<Value = (String, String, String, MemberFilter)> {
        ("[a-c]{1,3}", "[a-c/]{1,3}", "[a-c/]{1,3}", filter())
    }

    fn id(parts: &(String, String, String, MemberFilter)) -> ListId<'_> {
        ListId { tenant: &parts.0, conversation_id: &parts.1, message_id: &parts.2, filter: parts.3 }
    }

    proptest! {
        #[test]
        fn cursor_opens_for_its_own_list(list in list(), slot in any::<u32>()) {
            prop_assert_eq!(KEY.open(id(&list), &KEY.sign(id(&list), slot)), Ok(slot));
        }

        #[test]
        fn cursor_with_a_flipped_bit_is_refused(list in list(), slot in any::<u32>(), at in 0_usize..28, bit in 0_u8..7) {
            let mut cursor = KEY.sign(id(&list), slot).into_bytes();
            cursor[at] ^= 1 << bit;
            prop_assert_eq!(KEY.open(id(&list), &String::from_utf8(cursor).unwrap()), Err(BadCursor));
        }

        #[test]
        fn cursor_of_another_list_is_refused(given in list(), asked in list(), slot in any::<u32>()) {
            prop_assume!(given != asked);
            prop_assert_eq!(KEY.open(id(&asked), &KEY.sign(id(&given), slot)), Err(BadCursor));
        }

        #[test]
        fn cursor_of_another_key_is_refused(list in list(), slot in any::<u32>(), other in any::<[u8; 32]>()) {
            prop_assume!(other != KEY.0);
            prop_assert_eq!(KEY.open(id(&list), &CursorKey::new(other).sign(id(&list), slot)), Err(BadCursor));
        }

        #[test]
        fn no_text_makes_opening_panic(list in list(), text in "\\PC{0,40}") {
            prop_assert_eq!(KEY.open(id(&list), &text), Err(BadCursor));
        }
    }

    #[test]
    fn slash_in_an_id_keeps_lists_apart() {
        let one = ListId { tenant: "t", conversation_id: "a/b", message_id: "c", filter: MemberFilter::Read };
        let two = ListId { conversation_id: "a", message_id: "b/c", ..one };
        assert_eq!(KEY.open(two, &KEY.sign(one, 9)), Err(BadCursor));
    }

    #[test]
    fn debug_output_hides_the_key() {
        assert_eq!(format!("{KEY:?}"), "CursorKey(..)");
    }
}
