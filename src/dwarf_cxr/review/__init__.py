"""Review: clinicians judge films finding by finding, mark regions, and give the data back."""
