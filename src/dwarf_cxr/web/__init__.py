"""The pages for clinicians: what the blind study and the review of radiographs share."""
