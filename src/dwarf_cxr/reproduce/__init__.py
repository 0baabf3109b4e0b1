"""The paper's tables and figures as frozen recipes: trained, evaluated, set beside its numbers."""
