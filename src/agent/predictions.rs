//! What was predicted beside what came of it.

use std::sync::Arc;

use super::{Agent, Error, FieldViolation};
use crate::optimization::{LedgerEntry, TrackRecord};
use crate::store::{PredictionFilter, PredictionPlace};
use crate::units::is_id;

/// A part of the list of predictions, and how predictions fared so far.
#[derive(Debug, Clone)]
pub struct PredictionsPage {
    /// Predictions, the newest first.
    pub predictions: Vec<LedgerEntry>,
    /// There are more.
    pub more: bool,
    /// The record of engines, lever by lever.
    pub record: Arc<TrackRecord>,
    /// The record of simulated ones.
    pub simulated_record: Arc<TrackRecord>,
}

/// Most predictions of a page.
pub const MAX_PREDICTIONS_PAGE: u32 = 500;

impl Agent {
    /// Predictions of these, the newest first, after this place.
    ///
    /// # Errors
    /// An id that no instance can have, an agent without a store, a store that cannot be read.
    pub async fn predictions(
        &self,
        filter: &PredictionFilter,
        after: Option<&PredictionPlace>,
        size: u32,
    ) -> Result<PredictionsPage, Error> {
        if filter.instance_id.as_deref().is_some_and(|id| !is_id(id)) {
            let wrong =
                FieldViolation::new("instance_id", "must be the id of an instance, or empty");
            return Err(Error::Invalid(vec![wrong]));
        }
        let store = self.store.as_ref().ok_or(Error::NoStore)?;
        let size = size.clamp(1, MAX_PREDICTIONS_PAGE);
        let mut predictions = store.predictions(filter, after, size + 1).await?;
        let more = predictions.len() > size as usize;
        predictions.truncate(size as usize);
        Ok(PredictionsPage {
            predictions,
            more,
            record: self.ledger.record(false),
            simulated_record: self.ledger.record(true),
        })
    }
}
