//! Asks the running service over HTTP, as any client does, and measures each answer. Must not
//! interpret answers.

use super::chat::Featured;
use anyhow::{Context as _, Result, bail};
use receipts_fold::view::{Member, ReadMark, Receipt};
use receipts_http::{MIN_POSITION_HEADER, TENANT_HEADER};
use receipts_query::Positions;
use reqwest::header::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};

/// A client of the service.
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
}

/// An answer, and the time from the request to its end.
pub(crate) struct Timed<T> {
    pub(crate) value: T,
    pub(crate) took: Duration,
}

#[derive(Deserialize)]
struct Receipts {
    receipts: Vec<Receipt>,
}

/// A page of a member list.
#[derive(Deserialize)]
pub(crate) struct Page {
    pub(crate) members: Vec<Member>,
    pub(crate) receipt: Receipt,
}

impl Client {
    /// Makes a client whose answers cover all events before `positions`.
    ///
    /// # Errors
    /// If the tenant cannot be the value of a header.
    pub(crate) fn new(url: String, tenant: &str, positions: &Positions) -> Result<Self> {
        let mut headers = HeaderMap::new();
        headers.insert(TENANT_HEADER, HeaderValue::from_str(tenant)?);
        headers.insert(MIN_POSITION_HEADER, HeaderValue::from_str(&positions.to_string())?);
        // The request goes to this process itself, so no proxy is used.
        let http = reqwest::Client::builder().default_headers(headers).no_proxy().build()?;
        Ok(Self { http, url })
    }

    /// Returns the receipts of messages of any conversations.
    pub(crate) async fn receipts(&self, messages: &[Featured]) -> Result<Timed<Vec<Receipt>>> {
        let ids: Vec<&str> = messages.iter().map(|message| message.message_id.as_str()).collect();
        let request = self.http.post(format!("{}/v1/receipts/query", self.url));
        let answer: Timed<Receipts> = self.answer(request.json(&serde_json::json!({ "message_ids": ids }))).await?;
        Ok(Timed { value: answer.value.receipts, took: answer.took })
    }

    /// Returns the first page of a list.
    pub(crate) async fn members(&self, message: &Featured, filter: &str) -> Result<Timed<Page>> {
        self.answer(self.http.get(format!("{}{}", self.url, members_path(message, filter)))).await
    }

    /// Returns a person's read mark.
    pub(crate) async fn read_mark(&self, conversation_id: &str, user_id: &str) -> Result<Timed<ReadMark>> {
        let url = format!("{}{}", self.url, read_mark_path(conversation_id, user_id));
        self.answer(self.http.get(url)).await
    }

    async fn answer<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> Result<Timed<T>> {
        let begun = Instant::now();
        let response = request.send().await.context("the service does not answer")?;
        let (status, url) = (response.status(), response.url().clone());
        let bytes = response.bytes().await.context("the service broke off its answer")?;
        let took = begun.elapsed();
        if !status.is_success() {
            bail!("{url} answers {status}: {}", String::from_utf8_lossy(&bytes));
        }
        let value = serde_json::from_slice(&bytes).with_context(|| format!("{url} answers in an unknown format"))?;
        Ok(Timed { value, took })
    }
}

/// The path of a receipt. The demo's ids need no percent-encoding.
pub(crate) fn receipt_path(message: &Featured) -> String {
    format!("/v1/conversations/{}/messages/{}/receipt", message.conversation_id, message.message_id)
}

/// The path of a list's first page.
pub(crate) fn members_path(message: &Featured, filter: &str) -> String {
    format!("/v1/conversations/{}/messages/{}/members?filter={filter}", message.conversation_id, message.message_id)
}

/// The path of a read mark.
pub(crate) fn read_mark_path(conversation_id: &str, user_id: &str) -> String {
    format!("/v1/conversations/{conversation_id}/read-marks/{user_id}")
}
